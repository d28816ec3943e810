-- Creates what must exist before a migration can run.
CREATE EXTENSION IF NOT EXISTS "uuid-ossp";
CREATE SCHEMA IF NOT EXISTS ledger AUTHORIZATION logline_owner;
CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION logline_owner;
CREATE SCHEMA IF NOT EXISTS memory AUTHORIZATION logline_owner;
CREATE TABLE IF NOT EXISTS ledger.migrations (
  version    integer     PRIMARY KEY,
  name       text        NOT NULL,
  hash       text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE ledger.migrations OWNER TO logline_owner;
