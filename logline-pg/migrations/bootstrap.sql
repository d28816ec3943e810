-- Roles belong to the cluster: another database may have made them, or be about to.
DO $do$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['logline_owner', 'logline_app', 'logline_runtime', 'logline_operator'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
  IF NOT pg_has_role(current_user, 'logline_owner', 'MEMBER') THEN
    EXECUTE format('GRANT logline_owner TO %I', current_user);
  END IF;
END $do$;
CREATE EXTENSION IF NOT EXISTS "uuid-ossp";
CREATE SCHEMA IF NOT EXISTS ledger AUTHORIZATION logline_owner;
CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION logline_owner;
CREATE TABLE IF NOT EXISTS ledger.migrations (
  version    integer     PRIMARY KEY,
  name       text        NOT NULL,
  hash       text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE ledger.migrations OWNER TO logline_owner;
