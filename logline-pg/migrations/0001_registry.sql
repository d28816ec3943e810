-- The registry: one row per version of a span, append-only, protected by row-level security.
-- Runs as logline_owner inside the migration's transaction.

-- The identity of a transaction. An empty setting means that there is none.
CREATE FUNCTION app.current_user_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT nullif(current_setting('app.user_id', true), '') $$;
CREATE FUNCTION app.current_tenant_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT nullif(current_setting('app.tenant_id', true), '') $$;
-- The tenant that a read asks for by name. Every reader may see its public rows.
CREATE FUNCTION app.named_tenant_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT nullif(current_setting('app.named_tenant_id', true), '') $$;

-- The tenants of an append for several tenants: a host commits its rows for all of them in one statement.
CREATE FUNCTION app.append_tenant_ids() RETURNS text[] LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(SELECT jsonb_array_elements_text(nullif(current_setting('app.append_tenant_ids', true), '')::jsonb));
END $$;

-- The clusters that have held this ledger. Transaction ids of different clusters cannot be compared, so each cluster begins an
-- epoch.
CREATE TABLE ledger.epochs (
  epoch     integer     PRIMARY KEY,
  cluster   text        NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Digests of all definitions in the schemas, as migrations have made them; `doctor` compares the last one.
CREATE TABLE ledger.definitions (
  number      integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest      text        NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE ledger.universal_registry (
  id          uuid        NOT NULL,
  seq         integer     NOT NULL CONSTRAINT ck_append_only CHECK (seq >= 0),
  entity_type text        COLLATE "C" NOT NULL,
  who         text        COLLATE "C" NOT NULL,
  did         text        COLLATE "C",
  this        text        COLLATE "C" NOT NULL,
  at          timestamptz NOT NULL,
  parent_id   uuid,
  related_to  uuid[],
  owner_id    text        COLLATE "C" NOT NULL CHECK (owner_id <> ''),
  tenant_id   text        COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
  visibility  text        COLLATE "C" NOT NULL CONSTRAINT ck_visibility CHECK (visibility IN ('private', 'tenant', 'public')),
  status      text        COLLATE "C",
  is_deleted  boolean     NOT NULL,
  name        text        COLLATE "C",
  description text        COLLATE "C",
  code        text        COLLATE "C",
  language    text        COLLATE "C",
  runtime     text        COLLATE "C",
  -- `json` keeps the canonical text as it was written. `jsonb` would print some numbers as hundreds of digits.
  input       json,
  output      json,
  error       json,
  content     json,
  duration_ms integer,
  trace_id    text        COLLATE "C",
  prev_hash   text        COLLATE "C",
  curr_hash   text        COLLATE "C" NOT NULL,
  signature   text        COLLATE "C" NOT NULL,
  public_key  text        COLLATE "C" NOT NULL,
  metadata    json,
  -- Append order. No client may write these three columns: see the grants.
  epoch       integer     NOT NULL DEFAULT 1,
  xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
  pos         bigint      GENERATED ALWAYS AS IDENTITY,
  CONSTRAINT ur_version PRIMARY KEY (tenant_id, id, seq)
);

-- INVARIANT: an id has one first version. With the primary key and the trigger below no chain can fork, however many writers
-- there are.
CREATE UNIQUE INDEX ur_first_version ON ledger.universal_registry (tenant_id, id) WHERE prev_hash IS NULL;
CREATE INDEX ur_order ON ledger.universal_registry (epoch, xid, pos);
CREATE INDEX ur_by_tenant ON ledger.universal_registry (tenant_id, epoch, xid, pos);
CREATE INDEX ur_by_type ON ledger.universal_registry (tenant_id, entity_type, epoch, xid, pos);
CREATE INDEX ur_by_parent ON ledger.universal_registry (tenant_id, parent_id, epoch, xid, pos) WHERE parent_id IS NOT NULL;
CREATE INDEX ur_by_trace ON ledger.universal_registry (tenant_id, trace_id, epoch, xid, pos) WHERE trace_id IS NOT NULL;
-- The rows that another tenant may read, so that a scan of them does not look at the others.
CREATE INDEX ur_public ON ledger.universal_registry (tenant_id, epoch, xid, pos) WHERE visibility = 'public';
-- The memories of one user, and those that others may read: a host reads them to search in them.
CREATE INDEX ur_memories ON ledger.universal_registry (tenant_id, owner_id, epoch, xid, pos) WHERE entity_type = 'memory';
CREATE INDEX ur_shared ON ledger.universal_registry (tenant_id, epoch, xid, pos)
WHERE entity_type = 'memory' AND visibility <> 'private';
CREATE INDEX ur_public_id ON ledger.universal_registry (tenant_id, id) WHERE visibility = 'public';

CREATE VIEW ledger.visible_timeline WITH (security_invoker = true, security_barrier = true) AS
SELECT ur.*, ur.at AS "when" FROM ledger.universal_registry ur WHERE NOT ur.is_deleted;

-- Append-only for everybody, including the owner. ALWAYS, so that session_replication_role does not switch it off.
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'append-only: % of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation', HINT = 'append the next version of the span instead';
END $$;
CREATE TRIGGER ur_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.universal_registry
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.universal_registry ENABLE ALWAYS TRIGGER ur_no_change;

-- INVARIANT: a version follows the last one. It has the same owner and type, and the last one's hash as prev_hash. One message
-- covers all that can be wrong, because the writer may not see the row that it asks about. The trigger runs AFTER the insert,
-- so that row-level security has checked the row first.
CREATE FUNCTION ledger.check_link() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  predecessor record;
BEGIN
  -- With this order the planner uses the primary key, even if it makes and keeps the plan while the table has no statistics.
  -- For a query of the exact row it may use any index that begins with the tenant.
  SELECT p.seq, p.xid, p.epoch, p.curr_hash, p.owner_id, p.entity_type INTO predecessor FROM ledger.universal_registry p
  WHERE p.tenant_id = NEW.tenant_id AND p.id = NEW.id AND p.seq < NEW.seq ORDER BY p.seq DESC LIMIT 1;
  IF NOT FOUND OR predecessor.seq <> NEW.seq - 1 OR (predecessor.curr_hash, predecessor.owner_id, predecessor.entity_type)
    IS DISTINCT FROM (NEW.prev_hash, NEW.owner_id, NEW.entity_type) THEN
    RAISE EXCEPTION 'span does not follow the last version of its id'
      USING ERRCODE = 'LL001', HINT = 'read the span again and append a successor of what is there';
  END IF;
  -- This transaction began to write before the one that wrote the predecessor. In append order this row would come first.
  IF predecessor.epoch = NEW.epoch AND predecessor.xid > NEW.xid THEN
    RAISE EXCEPTION 'span would come before the version that it follows'
      USING ERRCODE = 'serialization_failure', HINT = 'retry in a new transaction';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ur_link AFTER INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.prev_hash IS NOT NULL) EXECUTE FUNCTION ledger.check_link();

-- The types of spans that an append may rely on (`logline_core::ledger::PREMISES`; a test compares the two). Whoever relies on the last
-- version of such a span holds its lock together with others, and whoever adds the next version holds it alone.
CREATE FUNCTION ledger.premises() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY['consent'];
CREATE FUNCTION ledger.premise_lock(tenant_id text, id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended('logline.premise.' || id::text || '.' || tenant_id, 0);

-- Holds versions that an append relies on until the transaction ends, and says which of them are the last ones of their ids. The versions
-- are read by a statement of their own, whose snapshot is taken when the locks are held. It tells nobody anything who does not know the
-- hash that is asked for.
CREATE FUNCTION ledger.hold_premises(tenants text[], ids uuid[], hashes text[]) RETURNS TABLE (n bigint, holds boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
  -- In one order, so that hosts do not wait for each other in a circle.
  PERFORM pg_advisory_xact_lock_shared(l.key) FROM (
    SELECT DISTINCT ledger.premise_lock(p.tenant, p.id) AS key FROM unnest(tenants, ids) AS p(tenant, id) ORDER BY 1) l;
  RETURN QUERY SELECT p.n, coalesce((SELECT u.curr_hash = p.hash AND u.entity_type = ANY (ledger.premises())
      FROM ledger.universal_registry u WHERE u.tenant_id = p.tenant AND u.id = p.id ORDER BY u.seq DESC LIMIT 1), false)
    FROM unnest(tenants, ids, hashes) WITH ORDINALITY AS p(tenant, id, hash, n);
END $$;

-- For those who insert without `ledger.append`, which takes the locks before its transaction has a number.
CREATE FUNCTION ledger.lock_premise() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(ledger.premise_lock(NEW.tenant_id, NEW.id));
  RETURN NEW;
END $$;
CREATE TRIGGER ur_premise BEFORE INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.entity_type = 'consent') EXECUTE FUNCTION ledger.lock_premise();

-- Types that only the runtime writes: those that hosts sign according to `logline_core::roles::ENTITY_TYPES`, and names with
-- the reserved prefix. A test compares the list, and the function, with that table.
CREATE FUNCTION ledger.is_reserved(entity_type text, is_first boolean) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN entity_type = 'request' THEN NOT is_first
  WHEN entity_type IN (
    'api_key', 'boot_event', 'bundle_instantiation', 'checkpoint', 'consent', 'delegation', 'error_report',
    'escalation_request', 'execution', 'export_artifact', 'export_request', 'idempotency_record', 'memory', 'memory_audit',
    'memory_receipt', 'memory_search_result', 'metric', 'outside_outcome', 'outside_request', 'policy_cursor', 'policy_violation',
    'promotion', 'prompt_build', 'prompt_directive', 'prompt_eval_run', 'prompt_posterior', 'prompt_run', 'prompt_selection',
    'provider_execution', 'provider_request', 'redaction', 'registration', 'rollback', 'status_patch', 'test_result'
  ) THEN true
  ELSE starts_with(entity_type, 'logline_')
END;

-- The id that a user may derive from an idempotency key: `logline_core::ids::idempotent`.
DO $do$ BEGIN
  EXECUTE format($f$
    CREATE FUNCTION ledger.idempotent_id(tenant_id text, owner_id text, entity_type text, key text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN %1$I.uuid_generate_v5(%1$I.uuid_generate_v5(%1$I.uuid_ns_dns(), 'logline'),
      'idempotent' || E'\n' || tenant_id || E'\n' || owner_id || E'\n' || entity_type || E'\n' || key) $f$,
    (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'uuid-ossp'));
END $do$;

ALTER TABLE ledger.universal_registry ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.universal_registry FORCE ROW LEVEL SECURITY;

-- The rules of `logline_core::Scope::may_read`.
CREATE POLICY app_reads ON ledger.universal_registry FOR SELECT TO logline_app USING (
  (SELECT app.current_tenant_id()) IS NOT NULL AND (SELECT app.current_user_id()) IS NOT NULL AND (
    (tenant_id = (SELECT app.current_tenant_id())
      AND (owner_id = (SELECT app.current_user_id()) OR visibility IN ('tenant', 'public')))
    OR (visibility = 'public' AND (tenant_id = 'system' OR tenant_id = (SELECT app.named_tenant_id())))));
CREATE POLICY runtime_reads ON ledger.universal_registry FOR SELECT TO logline_runtime USING (
  (SELECT app.current_tenant_id()) IS NOT NULL AND (
    tenant_id = (SELECT app.current_tenant_id())
    OR (visibility = 'public' AND (tenant_id = 'system' OR tenant_id = (SELECT app.named_tenant_id())))));
CREATE POLICY operator_reads ON ledger.universal_registry FOR SELECT TO logline_operator USING (true);
-- For SECURITY DEFINER functions, and for pg_dump --enable-row-security.
CREATE POLICY owner_reads ON ledger.universal_registry FOR SELECT TO logline_owner USING (true);

-- INVARIANT: no client can store a row whose seal or time cannot be read. Such a row would block the next version of its id for
-- ever. (`prev_hash` is another row's `curr_hash`, so it is not checked here. This is part of the policies because every insert
-- parses check constraints again.)
CREATE FUNCTION ledger.is_sealed(curr_hash text, signature text, public_key text, at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN at >= '0001-01-01T00:00:00Z'::timestamptz AND at < '10000-01-01T00:00:00Z'::timestamptz AND octet_length(curr_hash) = 64 AND octet_length(decode(curr_hash, 'hex')) = 32 AND curr_hash = lower(curr_hash)
  AND octet_length(signature) = 128 AND octet_length(decode(signature, 'hex')) = 64 AND signature = lower(signature)
  AND octet_length(public_key) = 64 AND octet_length(decode(public_key, 'hex')) = 32 AND public_key = lower(public_key);

-- The bytes of the columns of a row that can be long, to weigh rows before they are fetched. (As a generated column it would cost
-- more than the rest of an insert: PostgreSQL prepares its expression again for every statement.)
CREATE FUNCTION ledger.bytes(input json, output json, error json, content json, metadata json, code text, description text)
RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(octet_length(input::text), 0) + coalesce(octet_length(output::text), 0) + coalesce(octet_length(error::text), 0)
  + coalesce(octet_length(content::text), 0) + coalesce(octet_length(metadata::text), 0) + coalesce(octet_length(code), 0)
  + coalesce(octet_length(description), 0);

-- The rules of `logline_core::Scope::check_append`, and those of a span's limits that are cheap to check. The depth of JSON is not:
-- a request that is too deep is found by the first poll, and parked.
CREATE POLICY app_appends ON ledger.universal_registry FOR INSERT TO logline_app WITH CHECK (
  ledger.is_sealed(curr_hash, signature, public_key, at) AND ledger.bytes(input, output, error, content, metadata, code, description) <= 1048576
  AND tenant_id = (SELECT app.current_tenant_id()) AND tenant_id <> 'system' AND owner_id = (SELECT app.current_user_id())
  AND NOT ledger.is_reserved(entity_type, prev_hash IS NULL)
  AND (prev_hash IS NOT NULL OR substr(id::text, 15, 1) <> '5'
    OR (json_typeof(metadata -> 'idempotency_key') = 'string'
      AND id = ledger.idempotent_id(tenant_id, owner_id, entity_type, metadata ->> 'idempotency_key'))));
CREATE POLICY runtime_appends ON ledger.universal_registry FOR INSERT TO logline_runtime
WITH CHECK (ledger.is_sealed(curr_hash, signature, public_key, at) AND (tenant_id = (SELECT app.current_tenant_id())
  OR tenant_id = ANY ((SELECT app.append_tenant_ids())::text[])));
CREATE POLICY operator_appends ON ledger.universal_registry FOR INSERT TO logline_operator
WITH CHECK (ledger.is_sealed(curr_hash, signature, public_key, at));

GRANT USAGE ON SCHEMA ledger, app TO logline_app, logline_runtime, logline_operator;
GRANT SELECT ON ledger.universal_registry, ledger.visible_timeline, ledger.epochs, ledger.migrations, ledger.definitions
TO logline_app, logline_runtime, logline_operator;
GRANT INSERT (id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, status,
  is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, prev_hash,
  curr_hash, signature, public_key, metadata)
ON ledger.universal_registry TO logline_app, logline_runtime, logline_operator;

-- Takes on a role and an identity until the end of the transaction. A login that is not a member of the role is refused.
CREATE FUNCTION ledger.identify(role text, tenant_id text, user_id text, named_tenant_id text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('role', role, true), set_config('app.tenant_id', tenant_id, true),
    set_config('app.user_id', user_id, true), set_config('app.named_tenant_id', named_tenant_id, true);
END $$;

-- Appends rows for several scopes in one transaction. Rows `ends[i-1]+1 ..= ends[i]` belong to scope i, and row-level security
-- checks them against it. The scopes of several hosts' runtimes may be combined: `many[i]` then lists their tenants as JSON,
-- and is empty otherwise. Before they were combined, each row was checked against the tenant of its own scope. This function
-- has the caller's rights: it can do nothing that its caller could not do.
CREATE FUNCTION ledger.append(
  roles text[], tenants text[], users text[], ends integer[], many text[],
  id uuid[], seq integer[], entity_type text[], who text[], did text[], this text[], at timestamptz[], parent_id uuid[],
  related_to text[], owner_id text[], tenant_id text[], visibility text[], status text[], is_deleted boolean[], name text[],
  description text[], code text[], language text[], runtime text[], input json[], output json[], error json[],
  content json[], duration_ms integer[], trace_id text[], prev_hash text[], curr_hash text[], signature text[],
  public_key text[], metadata json[], held_tenants text[], held uuid[], held_seqs integer[], held_hashes text[],
  held_ms bigint[], alone boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- An open transaction that has inserted a key makes others wait for it. They must not wait long.
SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
  lo integer := 1;
  hi integer;
  claims record;
BEGIN
  -- Before the first row gives the transaction its number: so in append order a version on which others relied is followed by its next
  -- version after all that relied on it.
  IF $8 && ledger.premises() THEN
    PERFORM pg_advisory_xact_lock(l.key) FROM (
      SELECT DISTINCT ledger.premise_lock(p.tenant, p.span) AS key FROM unnest($16, $6, $8) AS p(tenant, span, type)
      WHERE p.type = ANY (ledger.premises()) ORDER BY 1) l;
  END IF;
  IF cardinality($37) > 0 THEN
    -- If two hosts wait for each other, both give up soon, and each then tries its appends one by one.
    PERFORM set_config('lock_timeout', CASE WHEN $41 THEN '1s' ELSE '100ms' END, true);
    FOR claims IN
      SELECT c.tenant, array_agg(c.id ORDER BY c.id) AS ids, array_agg(c.seq ORDER BY c.id) AS seqs,
        array_agg(c.hash ORDER BY c.id) AS hashes, array_agg(c.ms ORDER BY c.id) AS ms
      FROM unnest($36, $37, $38, $39, $40) AS c(tenant, id, seq, hash, ms) GROUP BY c.tenant ORDER BY c.tenant
    LOOP
      PERFORM set_config('role', 'logline_runtime', true), set_config('app.tenant_id', claims.tenant, true),
        set_config('app.user_id', '', true), set_config('app.named_tenant_id', '', true);
      IF NOT ledger.hold_claims(claims.tenant, claims.ids, claims.seqs, claims.hashes, claims.ms) THEN
        RAISE EXCEPTION 'a claim for which rows are appended is lost' USING ERRCODE = 'LL002';
      END IF;
    END LOOP;
    PERFORM set_config('lock_timeout', '1s', true);
  END IF;
  FOR i IN 1 .. cardinality(roles) LOOP
    -- The same as `ledger.identify`, without a call of it, which would cost as much as inserting a row.
    PERFORM set_config('role', roles[i], true), set_config('app.tenant_id', tenants[i], true),
      set_config('app.user_id', users[i], true), set_config('app.named_tenant_id', '', true),
      set_config('app.append_tenant_ids', many[i], true);
    hi := ends[i];
    -- The usual case if many callers append one row each. It need not build a set from thirty arrays.
    IF lo = hi THEN
      INSERT INTO ledger.universal_registry (id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id,
        tenant_id, visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content,
        duration_ms, trace_id, prev_hash, curr_hash, signature, public_key, metadata)
      VALUES ($6[lo], $7[lo], $8[lo], $9[lo], $10[lo], $11[lo], $12[lo], $13[lo], $14[lo]::uuid[], $15[lo], $16[lo], $17[lo],
        $18[lo], $19[lo], $20[lo], $21[lo], $22[lo], $23[lo], $24[lo], $25[lo], $26[lo], $27[lo], $28[lo], $29[lo], $30[lo],
        $31[lo], $32[lo], $33[lo], $34[lo], $35[lo]);
    ELSIF cardinality(roles) = 1 THEN
      -- This uses each array as a whole, because a slice would be a copy.
      INSERT INTO ledger.universal_registry (id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id,
        tenant_id, visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content,
        duration_ms, trace_id, prev_hash, curr_hash, signature, public_key, metadata)
      SELECT r.id, r.seq, r.entity_type, r.who, r.did, r.this, r.at, r.parent_id, r.related_to::uuid[], r.owner_id, r.tenant_id,
        r.visibility, r.status, r.is_deleted, r.name, r.description, r.code, r.language, r.runtime, r.input, r.output, r.error,
        r.content, r.duration_ms, r.trace_id, r.prev_hash, r.curr_hash, r.signature, r.public_key, r.metadata
      FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14,
        $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24, $25, $26, $27, $28, $29, $30, $31, $32,
        $33, $34, $35)
      AS r(id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, status, is_deleted,
        name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, prev_hash, curr_hash,
        signature, public_key, metadata);
    ELSE
      INSERT INTO ledger.universal_registry (id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id,
        tenant_id, visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content,
        duration_ms, trace_id, prev_hash, curr_hash, signature, public_key, metadata)
      SELECT r.id, r.seq, r.entity_type, r.who, r.did, r.this, r.at, r.parent_id, r.related_to::uuid[], r.owner_id, r.tenant_id,
        r.visibility, r.status, r.is_deleted, r.name, r.description, r.code, r.language, r.runtime, r.input, r.output, r.error,
        r.content, r.duration_ms, r.trace_id, r.prev_hash, r.curr_hash, r.signature, r.public_key, r.metadata
      FROM unnest($6[lo:hi], $7[lo:hi], $8[lo:hi], $9[lo:hi], $10[lo:hi], $11[lo:hi], $12[lo:hi], $13[lo:hi], $14[lo:hi],
        $15[lo:hi], $16[lo:hi], $17[lo:hi], $18[lo:hi], $19[lo:hi], $20[lo:hi], $21[lo:hi], $22[lo:hi], $23[lo:hi],
        $24[lo:hi], $25[lo:hi], $26[lo:hi], $27[lo:hi], $28[lo:hi], $29[lo:hi], $30[lo:hi], $31[lo:hi], $32[lo:hi],
        $33[lo:hi], $34[lo:hi], $35[lo:hi])
      AS r(id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, status, is_deleted,
        name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, prev_hash, curr_hash,
        signature, public_key, metadata);
    END IF;
    lo := hi + 1;
  END LOOP;
END $$;

-- Whether the current identity may act for this tenant. The role is the one that was set, which only a member of that role can
-- do.
CREATE FUNCTION ledger.is_within(tenant_id text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('role', true) = 'logline_operator' OR tenant_id = app.current_tenant_id();

-- What an append must know of the stored versions, even if the writer may not see them: the number of the last one; whether the
-- version that was asked for exists; and, only if the owner is the same, type and hash of the last one.
CREATE FUNCTION ledger.heads(tenants text[], ids uuid[], seqs integer[], owners text[])
RETURNS TABLE (n bigint, head integer, exists_already boolean, same_owner boolean, entity_type text, curr_hash text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.n, h.seq,
    (SELECT e.seq FROM ledger.universal_registry e WHERE e.tenant_id = a.tenant AND e.id = a.id AND e.seq <= a.seq
      ORDER BY e.seq DESC LIMIT 1) IS NOT DISTINCT FROM a.seq,
    h.owner_id = a.owner,
    CASE WHEN h.owner_id = a.owner THEN h.entity_type END,
    CASE WHEN h.owner_id = a.owner THEN h.curr_hash END
  FROM unnest(tenants, ids, seqs, owners) WITH ORDINALITY AS a(tenant, id, seq, owner, n)
  CROSS JOIN LATERAL (
    SELECT u.seq, u.owner_id, u.entity_type, u.curr_hash FROM ledger.universal_registry u
    WHERE u.tenant_id = a.tenant AND u.id = a.id ORDER BY u.seq DESC LIMIT 1) h
  WHERE ledger.is_within(a.tenant)
    -- A user learns this only about spans that the user could write.
    AND (current_setting('role', true) IN ('logline_runtime', 'logline_operator') OR a.owner = app.current_user_id())
$$;

-- The number of the last version of an id if the caller may see that version, otherwise null. With row-level security alone, an
-- older version could take the place of a hidden one.
CREATE FUNCTION ledger.last_seq(tenant text, span uuid) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_operator boolean := current_setting('role', true) = 'logline_operator';
  is_runtime boolean := current_setting('role', true) = 'logline_runtime';
  mine boolean := tenant = app.current_tenant_id();
  last record;
BEGIN
  SELECT u.seq, u.visibility, u.owner_id INTO last FROM ledger.universal_registry u
  WHERE u.tenant_id = tenant AND u.id = span ORDER BY u.seq DESC LIMIT 1;
  IF is_operator OR last.visibility = 'public'
    OR (mine AND (is_runtime OR last.visibility = 'tenant' OR last.owner_id = app.current_user_id())) THEN
    RETURN last.seq;
  END IF;
  RETURN NULL;
END $$;

-- One version of a span, as an identity sees it: the last one, if `from_seq` is null and it is no tombstone; otherwise the first one from
-- there on. It needs one round trip, where a transaction with `ledger.identify` needs three. This function has the caller's rights.
--
-- Each role has statements of its own, because a plan with row-level security is made again whenever it is another role's turn. With their
-- order and limit the planner uses the primary key, also while the table is empty and every index seems as good: a connection keeps its
-- plans until the server has statistics.
DO $make$
DECLARE
  last_one text := 'RETURN QUERY SELECT * FROM (SELECT * FROM ledger.universal_registry u WHERE u.tenant_id = of_tenant AND u.id = span
          AND u.seq >= (SELECT ledger.last_seq(of_tenant, span)) ORDER BY u.seq LIMIT 1) l WHERE NOT l.is_deleted;';
  first_one text := 'RETURN QUERY SELECT * FROM ledger.universal_registry u WHERE u.tenant_id = of_tenant AND u.id = span
          AND u.seq >= from_seq ORDER BY u.seq LIMIT 1;';
BEGIN
  EXECUTE format($sql$
    CREATE FUNCTION ledger.version(of_role text, tenant text, who text, of_tenant text, span uuid, from_seq integer)
    RETURNS SETOF ledger.universal_registry LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp AS $body$
    BEGIN
      -- The same as `ledger.identify`, without a call of it.
      PERFORM set_config('role', of_role, true), set_config('app.tenant_id', tenant, true), set_config('app.user_id', who, true),
        set_config('app.named_tenant_id', of_tenant, true);
      IF of_role = 'logline_runtime' THEN
        IF from_seq IS NULL THEN %1$s ELSE %2$s END IF;
      ELSIF of_role = 'logline_app' THEN
        IF from_seq IS NULL THEN %1$s ELSE %2$s END IF;
      ELSE
        IF from_seq IS NULL THEN %1$s ELSE %2$s END IF;
      END IF;
    END $body$ $sql$, last_one, first_one);
END $make$;

-- The rows that a page looks at, in one tenant (or in all, if `tenant` is null) and one epoch: the rules of
-- `logline_core::Query::looks_at`. `narrow` is empty, or the column in which the rows have the value `narrow_value`. Each statement
-- is planned without looking at its parameters, because by old statistics no rows come after a recent one, and then every index
-- seems as good as the right one. The comparisons of whole keys can use one index only.
CREATE FUNCTION ledger.looked_at(tenant text, only_public boolean, narrow text, narrow_value text, span uuid, only_last boolean,
  of_epoch integer, after_xid xid8, after_pos bigint, until_xid xid8, until_pos bigint, most bigint)
RETURNS TABLE (xid xid8, pos bigint) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  IF span IS NOT NULL AND tenant IS NULL THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.id = span AND u.epoch = of_epoch
      AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      AND (NOT only_last OR u.seq = (SELECT l.seq FROM ledger.universal_registry l
        WHERE l.tenant_id = u.tenant_id AND l.id = span ORDER BY l.seq DESC LIMIT 1))
      ORDER BY u.xid, u.pos LIMIT most;
  ELSIF span IS NOT NULL AND only_last THEN
    -- With this order and limit only the primary key can serve, also in a plan that was made while the table was empty.
    RETURN QUERY SELECT u.xid, u.pos FROM (SELECT * FROM ledger.universal_registry l WHERE l.tenant_id = tenant AND l.id = span
        ORDER BY l.seq DESC LIMIT 1) u
      WHERE (NOT only_public OR u.visibility = 'public') AND u.epoch = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos);
  ELSIF span IS NOT NULL AND only_public THEN
    -- Its own index, so that the versions that are not public cost nothing.
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.tenant_id = tenant AND u.id = span AND u.visibility = 'public'
      AND u.epoch + 0 = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.epoch + 0, u.xid, u.pos LIMIT most;
  ELSIF span IS NOT NULL THEN
    -- `epoch + 0` keeps the planner from an index that has the order but not the id.
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.tenant_id = tenant AND u.id = span
      AND u.epoch + 0 = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.epoch + 0, u.xid, u.pos LIMIT most;
  ELSIF tenant IS NULL THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.epoch = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid, u.pos LIMIT most;
  ELSIF only_public THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.visibility = 'public'
      AND u.epoch = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid, u.pos LIMIT most;
  ELSIF narrow = 'parent_id' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.parent_id IS NOT NULL
      AND (u.parent_id, u.epoch, u.xid, u.pos) > (narrow_value::uuid, of_epoch, after_xid, after_pos)
      AND (u.parent_id, u.epoch, u.xid, u.pos) <= (narrow_value::uuid, of_epoch, until_xid, until_pos)
      ORDER BY u.parent_id, u.epoch, u.xid, u.pos LIMIT most;
  ELSIF narrow = 'trace_id' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.trace_id IS NOT NULL
      AND (u.trace_id, u.epoch, u.xid, u.pos) > (narrow_value, of_epoch, after_xid, after_pos)
      AND (u.trace_id, u.epoch, u.xid, u.pos) <= (narrow_value, of_epoch, until_xid, until_pos)
      ORDER BY u.trace_id, u.epoch, u.xid, u.pos LIMIT most;
  ELSIF narrow = 'entity_type' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant
      AND (u.entity_type, u.epoch, u.xid, u.pos) > (narrow_value, of_epoch, after_xid, after_pos)
      AND (u.entity_type, u.epoch, u.xid, u.pos) <= (narrow_value, of_epoch, until_xid, until_pos)
      ORDER BY u.entity_type, u.epoch, u.xid, u.pos LIMIT most;
  ELSE
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant
      AND u.epoch = of_epoch AND (u.xid, u.pos) > (after_xid, after_pos) AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid, u.pos LIMIT most;
  END IF;
END $$;

-- The same rows, newest first.
CREATE FUNCTION ledger.looked_back(tenant text, only_public boolean, narrow text, narrow_value text, span uuid, only_last boolean,
  of_epoch integer, until_xid xid8, until_pos bigint, most bigint)
RETURNS TABLE (xid xid8, pos bigint) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  IF span IS NOT NULL AND tenant IS NULL THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.id = span AND u.epoch = of_epoch
      AND (u.xid, u.pos) <= (until_xid, until_pos)
      AND (NOT only_last OR u.seq = (SELECT l.seq FROM ledger.universal_registry l
        WHERE l.tenant_id = u.tenant_id AND l.id = span ORDER BY l.seq DESC LIMIT 1))
      ORDER BY u.xid DESC, u.pos DESC LIMIT most;
  ELSIF span IS NOT NULL AND only_last THEN
    -- With this order and limit only the primary key can serve, also in a plan that was made while the table was empty.
    RETURN QUERY SELECT u.xid, u.pos FROM (SELECT * FROM ledger.universal_registry l WHERE l.tenant_id = tenant AND l.id = span
        ORDER BY l.seq DESC LIMIT 1) u
      WHERE (NOT only_public OR u.visibility = 'public') AND u.epoch = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos);
  ELSIF span IS NOT NULL AND only_public THEN
    -- Its own index, so that the versions that are not public cost nothing.
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.tenant_id = tenant AND u.id = span AND u.visibility = 'public'
      AND u.epoch + 0 = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.epoch + 0 DESC, u.xid DESC, u.pos DESC LIMIT most;
  ELSIF span IS NOT NULL THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.tenant_id = tenant AND u.id = span
      AND u.epoch + 0 = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.epoch + 0 DESC, u.xid DESC, u.pos DESC LIMIT most;
  ELSIF tenant IS NULL THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u
      WHERE u.epoch = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid DESC, u.pos DESC LIMIT most;
  ELSIF only_public THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.visibility = 'public'
      AND u.epoch = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid DESC, u.pos DESC LIMIT most;
  ELSIF narrow = 'parent_id' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.parent_id IS NOT NULL
      AND (u.parent_id, u.epoch) >= (narrow_value::uuid, of_epoch)
      AND (u.parent_id, u.epoch, u.xid, u.pos) <= (narrow_value::uuid, of_epoch, until_xid, until_pos)
      ORDER BY u.parent_id DESC, u.epoch DESC, u.xid DESC, u.pos DESC LIMIT most;
  ELSIF narrow = 'trace_id' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant AND u.trace_id IS NOT NULL
      AND (u.trace_id, u.epoch) >= (narrow_value, of_epoch)
      AND (u.trace_id, u.epoch, u.xid, u.pos) <= (narrow_value, of_epoch, until_xid, until_pos)
      ORDER BY u.trace_id DESC, u.epoch DESC, u.xid DESC, u.pos DESC LIMIT most;
  ELSIF narrow = 'entity_type' THEN
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant
      AND (u.entity_type, u.epoch) >= (narrow_value, of_epoch)
      AND (u.entity_type, u.epoch, u.xid, u.pos) <= (narrow_value, of_epoch, until_xid, until_pos)
      ORDER BY u.entity_type DESC, u.epoch DESC, u.xid DESC, u.pos DESC LIMIT most;
  ELSE
    RETURN QUERY SELECT u.xid, u.pos FROM ledger.universal_registry u WHERE u.tenant_id = tenant
      AND u.epoch = of_epoch AND (u.xid, u.pos) <= (until_xid, until_pos)
      ORDER BY u.xid DESC, u.pos DESC LIMIT most;
  END IF;
END $$;

-- The last row that a page may look at if it may look at `most` rows, and how many rows there are up to it; and the epoch and the
-- transaction id before which it has looked. It counts rows that
-- the caller may not see, because the server must read them to find that out. So it shows how many rows the caller's own tenant
-- has, and where; of other tenants it counts only the public ones.
CREATE FUNCTION ledger.bound(named text, narrow text, narrow_value text, span uuid, only_last boolean,
  after_epoch integer, after_xid xid8, after_pos bigint, until_epoch integer, until_xid xid8, until_pos bigint, most bigint)
RETURNS TABLE (epoch integer, xid xid8, pos bigint, visited bigint, last_epoch integer, horizon xid8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_operator boolean := current_setting('role', true) = 'logline_operator';
  is_runtime boolean := current_setting('role', true) = 'logline_runtime';
  mine text := CASE WHEN NOT is_operator THEN app.current_tenant_id() END;
  tenants text[] := CASE WHEN named IS NOT NULL THEN ARRAY[named] WHEN is_operator THEN ARRAY[NULL]
    WHEN mine = 'system' THEN ARRAY[mine] ELSE ARRAY[mine, 'system'] END;
  -- The first transaction id that is not read any more.
  stop xid8;
  newest record;
BEGIN
  visited := 0;
  horizon := ledger.horizon();
  last_epoch := (SELECT max(e.epoch) FROM ledger.epochs e);
  IF NOT is_operator AND (mine IS NULL OR NOT is_runtime AND app.current_user_id() IS NULL) THEN
    RETURN;
  END IF;
  FOR e IN greatest(after_epoch, 1) .. least(until_epoch, last_epoch) LOOP
    stop := CASE WHEN e = last_epoch THEN horizon ELSE '18446744073709551615'::xid8 END;
    WITH rows AS (
      SELECT r.xid, r.pos FROM unnest(tenants) AS t(tenant)
      CROSS JOIN LATERAL ledger.looked_at(t.tenant, NOT is_operator AND t.tenant <> mine, narrow, narrow_value, span, only_last, e,
        CASE WHEN e = after_epoch THEN after_xid ELSE '0'::xid8 END, CASE WHEN e = after_epoch THEN after_pos ELSE 0 END,
        CASE WHEN e = until_epoch AND until_xid < stop THEN until_xid ELSE stop END,
        CASE WHEN e = until_epoch AND until_xid < stop THEN until_pos ELSE 0 END, most - visited) r
      ORDER BY r.xid, r.pos LIMIT most - visited)
    SELECT r.xid, r.pos, (SELECT count(*) FROM rows) AS n INTO newest FROM rows r ORDER BY r.xid DESC, r.pos DESC LIMIT 1;
    IF FOUND THEN
      epoch := e; xid := newest.xid; pos := newest.pos; visited := visited + newest.n;
    END IF;
    EXIT WHEN visited >= most;
  END LOOP;
  RETURN NEXT;
END $$;

-- The same backwards: the first and the last row that a page of the newest rows may look at, and how many there are. It looks at rows
-- before (before_epoch, before_xid, before_pos), and up to (until_epoch, until_xid, until_pos).
CREATE FUNCTION ledger.bound_back(named text, narrow text, narrow_value text, span uuid, only_last boolean,
  before_epoch integer, before_xid xid8, before_pos bigint, until_epoch integer, until_xid xid8, until_pos bigint, most bigint)
RETURNS TABLE (epoch integer, xid xid8, pos bigint, visited bigint, top_epoch integer, top_xid xid8, top_pos bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_operator boolean := current_setting('role', true) = 'logline_operator';
  is_runtime boolean := current_setting('role', true) = 'logline_runtime';
  mine text := CASE WHEN NOT is_operator THEN app.current_tenant_id() END;
  tenants text[] := CASE WHEN named IS NOT NULL THEN ARRAY[named] WHEN is_operator THEN ARRAY[NULL]
    WHEN mine = 'system' THEN ARRAY[mine] ELSE ARRAY[mine, 'system'] END;
  last_epoch integer := (SELECT max(e.epoch) FROM ledger.epochs e);
  -- The last position of an epoch that is read.
  stop_xid xid8;
  stop_pos bigint;
  found_rows record;
BEGIN
  visited := 0;
  IF NOT is_operator AND (mine IS NULL OR NOT is_runtime AND app.current_user_id() IS NULL) THEN
    RETURN;
  END IF;
  FOR e IN REVERSE least(before_epoch, until_epoch, last_epoch) .. 1 LOOP
    stop_xid := '18446744073709551615'::xid8;
    stop_pos := 9223372036854775807;
    IF e = until_epoch THEN
      stop_xid := until_xid;
      stop_pos := until_pos;
    END IF;
    IF e = before_epoch AND (before_xid, before_pos - 1) < (stop_xid, stop_pos) THEN
      stop_xid := before_xid;
      stop_pos := before_pos - 1;
    END IF;
    WITH rows AS (
      SELECT r.xid, r.pos FROM unnest(tenants) AS t(tenant)
      CROSS JOIN LATERAL ledger.looked_back(t.tenant, NOT is_operator AND t.tenant <> mine, narrow, narrow_value, span, only_last, e,
        stop_xid, stop_pos, most - visited) r
      ORDER BY r.xid DESC, r.pos DESC LIMIT most - visited),
    ends AS (SELECT count(*) AS n FROM rows)
    SELECT ends.n, lowest.xid AS low_xid, lowest.pos AS low_pos, highest.xid AS high_xid, highest.pos AS high_pos INTO found_rows
      FROM ends,
      (SELECT r.xid, r.pos FROM rows r ORDER BY r.xid, r.pos LIMIT 1) lowest,
      (SELECT r.xid, r.pos FROM rows r ORDER BY r.xid DESC, r.pos DESC LIMIT 1) highest;
    IF FOUND THEN
      IF visited = 0 THEN
        top_epoch := e; top_xid := found_rows.high_xid; top_pos := found_rows.high_pos;
      END IF;
      epoch := e; xid := found_rows.low_xid; pos := found_rows.low_pos; visited := visited + found_rows.n;
    END IF;
    EXIT WHEN visited >= most;
  END LOOP;
  RETURN NEXT;
END $$;

-- How many rows there are, whatever the policies say. For audits.
CREATE FUNCTION ledger.row_count() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$ SELECT count(*) FROM ledger.universal_registry $$;

-- Transactions that have written and have not ended, each with its database. One that ends during the query is not listed.
CREATE FUNCTION ledger.running_transactions() RETURNS TABLE (xid xid, database name, pid integer) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.transactionid, d.datname, l.pid FROM pg_locks l
  JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
  JOIN pg_database d ON d.oid = a.datid
  WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'
  UNION ALL SELECT p.transaction, p.database, NULL FROM pg_prepared_xacts p
$$;

-- The transaction id below which append order is final: all transactions of the current epoch with a smaller id have ended,
-- committed or not. Transactions in other databases write nothing here and are ignored. A transaction whose database is unknown
-- counts as one of this database.
CREATE FUNCTION ledger.horizon() RETURNS xid8 LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  snapshot pg_snapshot := pg_current_snapshot();
  oldest xid8;
BEGIN
  -- A replica lists no running transactions. It knows only up to which id all have ended.
  IF pg_is_in_recovery() THEN
    RETURN pg_snapshot_xmin(snapshot);
  END IF;
  IF pg_snapshot_xmin(snapshot) = pg_snapshot_xmax(snapshot) THEN
    RETURN pg_snapshot_xmax(snapshot);
  END IF;
  SELECT running INTO oldest FROM pg_snapshot_xip(snapshot) AS running
  WHERE NOT EXISTS (SELECT FROM ledger.running_transactions() r WHERE r.xid = running::xid AND r.database <> current_database())
  ORDER BY running LIMIT 1;
  RETURN coalesce(oldest, pg_snapshot_xmax(snapshot));
END $$;

-- The transactions that keep append order from being final, oldest first, at most 8. Prepared transactions have no backend, so
-- their pid is null.
CREATE FUNCTION ledger.holders() RETURNS TABLE (pid integer, xid text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.pid, running::text FROM pg_snapshot_xip(pg_current_snapshot()) AS running
  JOIN ledger.running_transactions() r ON r.xid = running::xid AND r.database = current_database()
  ORDER BY running LIMIT 8
$$;

-- For the poller of a host. Returns up to where append order is final; hashes of the tenants that have rows from transaction
-- `after_xid` on (null if `after_epoch` is not the current epoch, or if there are too many rows); and whether there are rows
-- that are not final yet. It names no tenant and shows no row.
CREATE FUNCTION ledger.news(after_epoch integer, after_xid xid8)
RETURNS TABLE (epoch integer, horizon xid8, tenants bigint[], unsettled boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  h xid8 := ledger.horizon();
  e integer := (SELECT max(o.epoch) FROM ledger.epochs o);
BEGIN
  RETURN QUERY
    -- The limit also makes the planner use the index, whatever it estimates for the parameters.
    WITH new AS MATERIALIZED (SELECT u.tenant_id FROM ledger.universal_registry u
      WHERE u.epoch = e AND u.xid >= after_xid AND u.xid < h ORDER BY u.epoch, u.xid, u.pos LIMIT 1001)
    SELECT e, h,
      CASE WHEN after_epoch = e AND (SELECT count(*) FROM new) <= 1000 THEN
        ARRAY(SELECT DISTINCT hashtextextended(n.tenant_id, 0) FROM new n) END,
      -- EXISTS has no order, so if all rows are final it would read the whole table to find that out.
      (SELECT true FROM ledger.universal_registry u WHERE u.epoch = e AND u.xid >= h
        ORDER BY u.epoch, u.xid, u.pos LIMIT 1) IS NOT NULL;
END $$;

-- The identity of this cluster and of its timeline. Null on a replica, and if the service hides it.
CREATE FUNCTION ledger.cluster() RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  history text := '?';
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN NULL;
  END IF;
  BEGIN
    history := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
  EXCEPTION WHEN OTHERS THEN
    -- Managed services may hide the timeline.
  END;
  RETURN (SELECT system_identifier FROM pg_control_system()) || '/' || history;
EXCEPTION WHEN OTHERS THEN
  -- They may hide this as well. Epochs are then opened by hand (`logline migrate --new-epoch`).
  RETURN NULL;
END $$;

-- Begins a new epoch if the ledger is in another cluster than the one it last wrote in (restored, promoted, upgraded), or if
-- `forced`. The epoch is the default of its column, which is a constant: rows that are inserted from now on have the new epoch,
-- at no cost.
CREATE FUNCTION ledger.open_epoch(forced boolean) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  here text := ledger.cluster();
  last ledger.epochs;
BEGIN
  SELECT * INTO last FROM ledger.epochs ORDER BY epoch DESC LIMIT 1;
  -- If the service hides the identity of the cluster, it counts as unchanged. Only `forced` then opens an epoch.
  here := coalesce(here, last.cluster, '?');
  IF pg_is_in_recovery() OR (last.cluster = here AND NOT forced) THEN
    RETURN last.epoch;
  END IF;
  LOCK TABLE ledger.universal_registry IN ACCESS EXCLUSIVE MODE;
  SELECT * INTO last FROM ledger.epochs ORDER BY epoch DESC LIMIT 1;
  IF last.cluster = here AND NOT forced THEN
    RETURN last.epoch;
  END IF;
  EXECUTE format('ALTER TABLE ledger.universal_registry ALTER COLUMN epoch SET DEFAULT %s', last.epoch + 1);
  INSERT INTO ledger.epochs (epoch, cluster) VALUES (last.epoch + 1, here);
  RETURN last.epoch + 1;
END $$;
INSERT INTO ledger.epochs (epoch, cluster) VALUES (1, coalesce(ledger.cluster(), '?'));

-- By default everybody may execute a function, so that is revoked.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger, app FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger, app TO logline_app, logline_runtime, logline_operator;
REVOKE EXECUTE ON FUNCTION ledger.open_epoch(boolean) FROM logline_app, logline_runtime, logline_operator;
REVOKE EXECUTE ON FUNCTION ledger.row_count() FROM logline_app, logline_runtime;
CREATE FUNCTION ledger.check_epoch() RETURNS integer LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$ SELECT ledger.open_epoch(false) $$;
REVOKE EXECUTE ON FUNCTION ledger.check_epoch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.check_epoch() TO logline_app, logline_runtime, logline_operator;
