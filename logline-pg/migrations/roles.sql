-- Roles belong to the cluster: another database may have created them already, or may create them at the same time.
-- NOINHERIT: a role has the rights of another role only while it has taken that role.
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
  -- A worker reads for its guests as a user. An operator reads the trust root as the runtime of `system`. Each scope contains
  -- the next, so this shows nobody a row that they could not see before.
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
