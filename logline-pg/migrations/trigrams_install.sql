-- Installs pg_trgm if the server has it. The ledger works without it. Runs as the login that migrates, at every migration, as pgvector does.
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
    AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
  END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation OR undefined_file THEN
  RAISE WARNING 'pg_trgm was not installed: %', SQLERRM;
END $do$;
