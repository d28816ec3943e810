-- Wrapped keys of memories. A ledger keeps everything; these tables can forget. Their rows are worthless without the tenant's key, which
-- a key provider keeps. Runs as logline_owner inside the migration's transaction.

CREATE TABLE memory.epochs (
  tenant_id text   COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  number    bigint NOT NULL CHECK (number > 0),
  wraps     bigint NOT NULL DEFAULT 0,
  CONSTRAINT epochs_pkey PRIMARY KEY (tenant_id, number)
);
CREATE TABLE memory.subject_keys (
  tenant_id text   COLLATE "C" NOT NULL,
  id        uuid   NOT NULL,
  subject   text   COLLATE "C" NOT NULL CHECK (subject <> ''),
  epoch     bigint NOT NULL,
  wrapped   bytea  NOT NULL CHECK (octet_length(wrapped) BETWEEN 1 AND 4096),
  added     bigint NOT NULL DEFAULT 0,
  CONSTRAINT subject_keys_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT subject_keys_subject UNIQUE (tenant_id, subject),
  CONSTRAINT subject_keys_epoch FOREIGN KEY (tenant_id, epoch) REFERENCES memory.epochs
);
CREATE INDEX subject_keys_by_epoch ON memory.subject_keys (tenant_id, epoch, id);
CREATE TABLE memory.record_keys (
  tenant_id   text  COLLATE "C" NOT NULL,
  id          uuid  NOT NULL,
  subject_key uuid  NOT NULL,
  span        uuid  NOT NULL,
  wrapped     bytea NOT NULL CHECK (octet_length(wrapped) BETWEEN 1 AND 4096),
  tag         bytea CHECK (octet_length(tag) = 32),
  note        bytea CHECK (octet_length(note) BETWEEN 1 AND 4096),
  added_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT record_keys_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT record_keys_subject FOREIGN KEY (tenant_id, subject_key) REFERENCES memory.subject_keys ON DELETE CASCADE
);
CREATE INDEX record_keys_by_subject ON memory.record_keys (tenant_id, subject_key, id);
CREATE INDEX record_keys_by_age ON memory.record_keys (tenant_id, added_at, id);
CREATE INDEX record_keys_by_tag ON memory.record_keys (tenant_id, subject_key, tag, id) WHERE tag IS NOT NULL;
CREATE TABLE memory.receipts (
  tenant_id text COLLATE "C" NOT NULL,
  id        uuid NOT NULL,
  CONSTRAINT receipts_pkey PRIMARY KEY (tenant_id, id)
);

-- Hosts alone use the keys, each transaction those of one tenant.
DO $do$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['epochs', 'subject_keys', 'record_keys', 'receipts'] LOOP
    EXECUTE format('ALTER TABLE memory.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE memory.%I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY runtime_keeps ON memory.%I FOR ALL TO logline_runtime
      USING (tenant_id = (SELECT app.current_tenant_id())) WITH CHECK (tenant_id = (SELECT app.current_tenant_id()))', name);
    -- Foreign keys are checked as the owner, and pg_dump --enable-row-security reads as the owner.
    EXECUTE format('CREATE POLICY owner_keeps ON memory.%I FOR ALL TO logline_owner USING (true) WITH CHECK (true)', name);
  END LOOP;
END $do$;
GRANT USAGE ON SCHEMA memory TO logline_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory.epochs, memory.subject_keys, memory.record_keys TO logline_runtime;
GRANT SELECT, INSERT ON memory.receipts TO logline_runtime;
