-- Roles belong to the cluster: another database may have made them, or be about to.
-- NOINHERIT: what a role may do besides its own work, it does by taking the other role, never by the way.
DO $do$
DECLARE
  name text;
  pair text[];
BEGIN
  FOREACH name IN ARRAY ARRAY['logline_owner', 'logline_app', 'logline_runtime', 'logline_operator'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
  -- A worker reads for its guests as a user; an operator reads the trust root as the runtime of `system`. Each scope contains
  -- the next, so this gives nobody a row that they did not have.
  FOREACH pair SLICE 1 IN ARRAY ARRAY[['logline_app', 'logline_runtime'], ['logline_runtime', 'logline_operator']] LOOP
    IF NOT pg_has_role(pair[2], pair[1], 'MEMBER') THEN
      BEGIN
        EXECUTE format('GRANT %I TO %I', pair[1], pair[2]);
      EXCEPTION WHEN unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
END $do$;
