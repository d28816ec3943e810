-- Installs pgvector if the server has it. The ledger works without it. Runs as the login that migrates, at every migration, because the
-- server may have got it since the last one. It is a trusted extension on some servers only: a login that may not create it is no error.
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')
    AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector' AND string_to_array(default_version, '.')::integer[] >= '{0,8}') THEN
    CREATE EXTENSION IF NOT EXISTS vector;
  END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation OR undefined_file THEN
  RAISE WARNING 'pgvector was not installed: %', SQLERRM;
END $do$;
