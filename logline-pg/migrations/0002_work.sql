-- Open work, active spans, and quota counters. These tables follow from the registry, and change in the statement that adds a
-- row to it. Only the functions below read or write them. Runs as logline_owner inside the migration's transaction.

CREATE TABLE ledger.work (
  tenant_id text        COLLATE "C" NOT NULL,
  id        uuid        NOT NULL,
  seq       integer     NOT NULL,
  owner_id  text        COLLATE "C" NOT NULL,
  curr_hash text        COLLATE "C" NOT NULL,
  priority  smallint    NOT NULL,
  ready_at  timestamptz NOT NULL,
  leased    boolean     NOT NULL,
  -- Why the request is parked until `ready_at`, which may be `infinity`.
  parked    text,
  CONSTRAINT work_request PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX work_ready ON ledger.work (tenant_id, priority, ready_at, id);

-- Active spans, which hosts attend to without a request: `logline_core::ledger::ActiveKind`.
CREATE TABLE ledger.active (
  kind      text    COLLATE "C" NOT NULL,
  tenant_id text    COLLATE "C" NOT NULL,
  id        uuid    NOT NULL,
  seq       integer NOT NULL,
  owner_id  text    COLLATE "C" NOT NULL,
  curr_hash text    COLLATE "C" NOT NULL,
  -- A host has found that its signer may not sign it.
  refused   boolean NOT NULL DEFAULT false,
  CONSTRAINT active_span PRIMARY KEY (kind, tenant_id, id)
);
CREATE INDEX active_listed ON ledger.active (kind, tenant_id, id) WHERE NOT refused;

-- One row per tenant and quota, for the last day on which it was used.
CREATE TABLE ledger.quota (
  tenant_id text   COLLATE "C" NOT NULL,
  key       text   COLLATE "C" NOT NULL,
  day       date   NOT NULL,
  used      bigint NOT NULL,
  CONSTRAINT quota_key PRIMARY KEY (tenant_id, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

ALTER TABLE ledger.work ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.work FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.active ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.active FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.quota ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.quota FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_works ON ledger.work TO logline_owner USING (true) WITH CHECK (true);
CREATE POLICY owner_active ON ledger.active TO logline_owner USING (true) WITH CHECK (true);
CREATE POLICY owner_counts ON ledger.quota TO logline_owner USING (true) WITH CHECK (true);

-- The ledger's day, in UTC. Constant within a transaction.
CREATE FUNCTION ledger.today() RETURNS date LANGUAGE sql STABLE
RETURN (now() AT TIME ZONE 'UTC')::date;

-- How a number and a time are read from metadata, as in `logline_core::request::QueueEntry`. Null if the value is not a number
-- or not a time.
CREATE FUNCTION ledger.number_in(metadata json, name text, highest numeric) RETURNS numeric LANGUAGE sql IMMUTABLE
RETURN CASE WHEN json_typeof(metadata -> name) = 'number'
  THEN greatest(0, least(highest, trunc((metadata ->> name)::numeric))) END;

-- Digits beyond microseconds are dropped. A cast to timestamptz would round them, and it refuses some offsets. A trial of the
-- conformance suite compares this with the parser of the library.
CREATE FUNCTION ledger.time_in(metadata json, name text) RETURNS timestamptz LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text[];
  result timestamptz;
BEGIN
  IF json_typeof(metadata -> name) IS DISTINCT FROM 'string' THEN
    RETURN NULL;
  END IF;
  part := regexp_match(metadata ->> name,
    '^(\d{4})-(\d\d)-(\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))$');
  IF part IS NULL THEN
    RETURN NULL;
  END IF;
  result := make_timestamptz(part[1]::integer, part[2]::integer, part[3]::integer, part[4]::integer, part[5]::integer,
      part[6]::integer, 'UTC')
    + rpad(left(coalesce(part[7], ''), 6), 6, '0')::integer * interval '1 microsecond'
    - coalesce(part[8] || '1', '1')::integer * (coalesce(part[9], '0')::integer * 60 + coalesce(part[10], '0')::integer)
      * interval '1 minute';
  IF result >= '0001-01-01T00:00:00Z' AND result < '10000-01-01T00:00:00Z' THEN
    RETURN result;
  END IF;
  RETURN NULL;
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END $$;

-- Whether a version is a claim, with which a worker takes a request. Only the runtime writes claims.
CREATE FUNCTION ledger.is_claim(prev_hash text, status text, is_deleted boolean) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN prev_hash IS NOT NULL AND status IS NOT DISTINCT FROM 'running' AND NOT is_deleted;

-- When a request can be claimed: at the end of its lease, or at its due time, but not before now. A due time in the past would put
-- it before those that wait already.
CREATE FUNCTION ledger.ready_at(claimed boolean, metadata json) RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN CASE WHEN claimed
  THEN clock_timestamp() + coalesce(ledger.number_in(metadata, 'lease_ms', 86400000), 60000)::float8 * interval '1 ms'
  ELSE greatest(ledger.time_in(metadata, 'due_at'), clock_timestamp()) END;

-- Whether a version ends an attempt, with a result or because it was cancelled. Only the runtime writes such versions.
CREATE FUNCTION ledger.ends_attempt(prev_hash text, did text, is_deleted boolean) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN prev_hash IS NOT NULL AND coalesce(did IN ('completed', 'failed', 'gave_up', 'cancelled'), false) AND NOT is_deleted;

-- How a span is charged, as in `logline_core::request::Charges::of`: `keys` for a claim, `units` for the end of an attempt and for the
-- intent of a call, `settled` for the outcome of a call; null if it is not charged.
CREATE FUNCTION ledger.charged_as(entity_type text, prev_hash text, status text, did text, is_deleted boolean) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
  WHEN entity_type = 'request' AND ledger.is_claim(prev_hash, status, is_deleted) THEN 'keys'
  WHEN entity_type = 'request' AND ledger.ends_attempt(prev_hash, did, is_deleted) THEN 'units'
  WHEN prev_hash IS NOT NULL OR is_deleted THEN NULL
  WHEN entity_type IN ('outside_request', 'provider_request') THEN 'units'
  WHEN entity_type IN ('outside_outcome', 'provider_execution') THEN 'settled' END;

-- As `logline_core::request::Charges::of`, for one day: the quotas of which a claim uses one unit, or the units that an attempt or
-- a call uses; negative units are given back. (plpgsql keeps the plan. A set from an SQL function is planned at every call.)
CREATE FUNCTION ledger.charges(charged text, metadata json, day date) RETURNS TABLE (key text, units bigint) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF json_typeof(metadata #> '{quota,day}') IS DISTINCT FROM 'string' OR metadata #>> '{quota,day}' <> to_char(day, 'YYYY-MM-DD') THEN
    RETURN;
  END IF;
  IF charged = 'keys' THEN
    RETURN QUERY SELECT name, 1::bigint FROM (
      SELECT array_agg(DISTINCT e #>> '{}') AS keys
      FROM json_array_elements(
        CASE WHEN json_typeof(metadata #> '{quota,keys}') = 'array' THEN metadata #> '{quota,keys}' ELSE '[]' END) AS e
      HAVING bool_and(json_typeof(e) = 'string' AND octet_length(e #>> '{}') BETWEEN 1 AND 128)
        AND count(DISTINCT e #>> '{}') BETWEEN 1 AND 16) named,
    unnest(named.keys) AS name
    ORDER BY name COLLATE "C";
  ELSIF charged IS NOT NULL THEN
    RETURN QUERY SELECT name, number::bigint FROM (
      SELECT array_agg(e.key) AS keys, array_agg(CASE WHEN json_typeof(e.value) = 'number' THEN (e.value #>> '{}')::numeric END) AS used
      FROM json_each(
        CASE WHEN json_typeof(metadata #> '{quota,units}') = 'object' THEN metadata #> '{quota,units}' ELSE '{}' END) AS e
      HAVING bool_and(json_typeof(e.value) = 'number' AND octet_length(e.key) BETWEEN 1 AND 128) AND count(*) BETWEEN 1 AND 16) named,
    unnest(named.keys, named.used) AS u(name, number)
    WHERE (SELECT bool_and(n BETWEEN CASE charged WHEN 'units' THEN 0 ELSE -9007199254740991 END AND 9007199254740991 AND n = trunc(n)) FROM unnest(named.used) AS n)
    ORDER BY name COLLATE "C";
  END IF;
END $$;

CREATE FUNCTION ledger.keep_work() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  claimed boolean := ledger.is_claim(NEW.prev_hash, NEW.status, NEW.is_deleted);
BEGIN
  -- The last seq has no successor: no worker could ever claim or close such a request.
  IF (claimed OR (NEW.status = 'scheduled' AND NOT NEW.is_deleted)) AND NEW.seq < 2147483647 THEN
    INSERT INTO ledger.work AS w (tenant_id, id, seq, owner_id, curr_hash, priority, ready_at, leased)
    VALUES (NEW.tenant_id, NEW.id, NEW.seq, NEW.owner_id, NEW.curr_hash,
      coalesce(ledger.number_in(NEW.metadata, 'priority', 9), 5),
      ledger.ready_at(claimed, NEW.metadata), claimed)
    ON CONFLICT (tenant_id, id) DO UPDATE SET seq = EXCLUDED.seq, curr_hash = EXCLUDED.curr_hash,
      priority = EXCLUDED.priority, ready_at = EXCLUDED.ready_at, leased = EXCLUDED.leased, parked = NULL
    WHERE w.seq < EXCLUDED.seq;
  ELSE
    DELETE FROM ledger.work w WHERE w.tenant_id = NEW.tenant_id AND w.id = NEW.id AND w.seq < NEW.seq;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ur_work AFTER INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.entity_type = 'request') EXECUTE FUNCTION ledger.keep_work();

-- Counts what a new row uses.
CREATE FUNCTION ledger.keep_counters() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  charged text := ledger.charged_as(NEW.entity_type, NEW.prev_hash, NEW.status, NEW.did, NEW.is_deleted);
  charge record;
BEGIN
  IF charged IS NOT NULL THEN
    FOR charge IN SELECT c.key, c.units FROM ledger.charges(charged, NEW.metadata, ledger.today()) AS c LOOP
      INSERT INTO ledger.quota AS q (tenant_id, key, day, used) VALUES (NEW.tenant_id, charge.key, ledger.today(), charge.units)
      ON CONFLICT (tenant_id, key) DO UPDATE
      SET day = EXCLUDED.day, used = CASE WHEN q.day = EXCLUDED.day THEN q.used + EXCLUDED.used ELSE EXCLUDED.used END
      WHERE q.day <= EXCLUDED.day;
    END LOOP;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ur_counters AFTER INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.entity_type IN ('request', 'outside_request', 'outside_outcome', 'provider_request', 'provider_execution')
  AND (NEW.metadata -> 'quota') IS NOT NULL) EXECUTE FUNCTION ledger.keep_counters();

-- The kind as which a last version is active; null if it is not active.
CREATE FUNCTION ledger.active_as(entity_type text, status text, is_deleted boolean) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN is_deleted THEN NULL
  WHEN entity_type = 'function' AND status = 'scheduled' THEN 'schedule'
  WHEN entity_type = 'policy' AND status = 'active' THEN 'policy' END;

CREATE FUNCTION ledger.keep_active() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stands text := ledger.active_as(NEW.entity_type, NEW.status, NEW.is_deleted);
BEGIN
  IF stands IS NULL THEN
    DELETE FROM ledger.active s
    WHERE s.kind IN ('schedule', 'policy') AND s.tenant_id = NEW.tenant_id AND s.id = NEW.id AND s.seq < NEW.seq;
  ELSE
    INSERT INTO ledger.active AS s (kind, tenant_id, id, seq, owner_id, curr_hash)
    VALUES (stands, NEW.tenant_id, NEW.id, NEW.seq, NEW.owner_id, NEW.curr_hash)
    ON CONFLICT (kind, tenant_id, id) DO UPDATE SET seq = EXCLUDED.seq, curr_hash = EXCLUDED.curr_hash, refused = false
    WHERE s.seq < EXCLUDED.seq;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ur_active AFTER INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.entity_type IN ('function', 'policy')) EXECUTE FUNCTION ledger.keep_active();

-- The active spans of one kind that nobody has refused: of `only_tenants`, or of all if that is null. For hosts, as `claimable`.
CREATE FUNCTION ledger.list_active(of_kind text, after_tenant text, after_id uuid, most integer, only_tenants text[])
RETURNS TABLE (tenant_id text, owner_id text, id uuid, seq integer, curr_hash text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.tenant_id, s.owner_id, s.id, s.seq, s.curr_hash FROM ledger.active s
  WHERE s.kind = of_kind AND NOT s.refused AND (s.tenant_id, s.id) > (after_tenant, after_id)
    AND (only_tenants IS NULL OR s.tenant_id = ANY (only_tenants))
  ORDER BY s.tenant_id, s.id LIMIT least(most, 1000)
$$;

-- Takes active spans off the list.
CREATE FUNCTION ledger.refuse_active(of_kind text, tenant text, ids uuid[], seqs integer[]) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  UPDATE ledger.active s SET refused = true FROM unnest(ids, seqs) AS a(id, seq)
  WHERE s.kind = of_kind AND s.tenant_id = tenant AND s.id = a.id AND s.seq = a.seq AND ledger.is_within(tenant)
$$;

-- Puts them on the list again.
CREATE FUNCTION ledger.offer_active(of_kind text, only_tenants text[]) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  UPDATE ledger.active s SET refused = false
  WHERE s.kind = of_kind AND s.refused AND (only_tenants IS NULL OR s.tenant_id = ANY (only_tenants))
$$;

-- The tenants that have rows from transaction `after_xid` on, as far as append order is final. Null if `after_epoch` is not the
-- current epoch, or if there are too many rows. For hosts.
CREATE FUNCTION ledger.touched(after_epoch integer, after_xid xid8) RETURNS TABLE (epoch integer, horizon xid8, tenants text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  h xid8 := ledger.horizon();
  e integer := (SELECT max(o.epoch) FROM ledger.epochs o);
BEGIN
  RETURN QUERY
    WITH new AS MATERIALIZED (SELECT u.tenant_id FROM ledger.universal_registry u
      WHERE u.epoch = e AND u.xid >= after_xid AND u.xid < h ORDER BY u.epoch, u.xid, u.pos LIMIT 1001)
    SELECT e, h, CASE WHEN after_epoch = e AND (SELECT count(*) FROM new) <= 1000 THEN
      ARRAY(SELECT DISTINCT n.tenant_id::text FROM new n) END;
END $$;

-- The next tenant in order that may have open work: of `only_tenants`, or of all if that is null.
CREATE FUNCTION ledger.next_tenant(after text, only_tenants text[]) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF only_tenants IS NULL THEN
    RETURN (SELECT w.tenant_id FROM ledger.work w WHERE w.tenant_id > after COLLATE "C" ORDER BY w.tenant_id LIMIT 1);
  END IF;
  RETURN (SELECT min(t.name COLLATE "C") FROM unnest(only_tenants) AS t(name) WHERE t.name > after COLLATE "C");
END $$;

-- Due requests that nobody has leased, tenant by tenant, beginning after one tenant and wrapping around. For hosts: it needs no
-- tenant's identity, and shows nothing of the content of requests. Its cost grows with the number of tenants that have open
-- work.
-- Of one tenant it returns `per_tenant` requests at most, or what `rooms` says of that tenant.
CREATE FUNCTION ledger.claimable(after text, most integer, only_tenants text[], per_tenant integer, rooms json)
RETURNS TABLE (turn integer, tenant_id text, owner_id text, id uuid, seq integer, curr_hash text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tenant text COLLATE "C" := after;
  started_at text COLLATE "C" := after;
  wrapped boolean := after = '';
  t timestamptz := clock_timestamp();
  room integer;
  found_now integer;
  has_some boolean;
BEGIN
  turn := 0;
  most := least(most, 100);
  WHILE turn < most LOOP
    tenant := ledger.next_tenant(tenant, only_tenants);
    IF tenant IS NULL THEN
      EXIT WHEN wrapped;
      wrapped := true;
      tenant := '';
      CONTINUE;
    END IF;
    EXIT WHEN wrapped AND started_at <> '' AND tenant > started_at;
    room := least(most, coalesce((rooms ->> tenant)::integer, per_tenant));
    has_some := false;
    FOR level IN REVERSE 9 .. 0 LOOP
      EXIT WHEN room = 0;
      RETURN QUERY SELECT turn, w.tenant_id, w.owner_id, w.id, w.seq, w.curr_hash FROM ledger.work w
      WHERE w.tenant_id = tenant AND w.priority = level AND w.ready_at <= t ORDER BY w.ready_at, w.id LIMIT room;
      GET DIAGNOSTICS found_now = ROW_COUNT;
      room := room - found_now;
      has_some := has_some OR found_now > 0;
    END LOOP;
    IF has_some THEN
      turn := turn + 1;
    END IF;
  END LOOP;
END $$;

-- As `claimable`, but what it returns is not due for others until the hold ends. Each tenant gets its share first, then what is
-- left. Rows that another host is taking at the same time are skipped. The commit does not wait for the disk: if a crash loses
-- a hold, workers only race for the request.
CREATE FUNCTION ledger.hold_due(after text, most integer, hold_ms bigint, only_tenants text[], per_tenant integer, rooms json)
RETURNS TABLE (turn integer, tenant_id text, id uuid, seq integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- A plan that is made while the table is small is kept when the table has grown, so it must use the index from the start.
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  t timestamptz := clock_timestamp();
  until timestamptz := t + least(hold_ms, 10000) * interval '1 ms';
  tenants text[] := '{}';
  -- How many more requests of each of these tenants may be returned.
  left_of integer[] := '{}';
  room_of integer;
  tenant text COLLATE "C" := after;
  wrapped boolean := after = '';
  room integer := least(most, 100);
  share integer;
  quota integer;
  level smallint;
  found_now integer;
BEGIN
  WHILE cardinality(tenants) < room LOOP
    tenant := ledger.next_tenant(tenant, only_tenants);
    IF tenant IS NULL THEN
      EXIT WHEN wrapped;
      wrapped := true;
      tenant := '';
      CONTINUE;
    END IF;
    EXIT WHEN wrapped AND after <> '' AND tenant > after;
    room_of := coalesce((rooms ->> tenant)::integer, per_tenant);
    CONTINUE WHEN room_of <= 0;
    level := 10;
    LOOP
      level := (SELECT w.priority FROM ledger.work w WHERE w.tenant_id = tenant AND w.priority < level
        ORDER BY w.priority DESC LIMIT 1);
      EXIT WHEN level IS NULL;
      IF EXISTS (SELECT FROM ledger.work w WHERE w.tenant_id = tenant AND w.priority = level AND w.ready_at <= t) THEN
        tenants := tenants || tenant;
        left_of := left_of || room_of;
        EXIT;
      END IF;
    END LOOP;
  END LOOP;
  IF tenants = '{}' THEN
    RETURN;
  END IF;
  PERFORM set_config('synchronous_commit', 'off', true);
  share := greatest(1, room / cardinality(tenants));
  FOR round IN 1 .. 2 LOOP
    FOR i IN 1 .. cardinality(tenants) LOOP
      turn := i;
      quota := least(CASE round WHEN 1 THEN least(share, room) ELSE room END, left_of[i]);
      level := 10;
      LOOP
        EXIT WHEN quota <= 0;
        -- Only priorities that occur are read. Few tenants use more than one.
        level := (SELECT w.priority FROM ledger.work w WHERE w.tenant_id = tenants[i] AND w.priority < level
          ORDER BY w.priority DESC LIMIT 1);
        EXIT WHEN level IS NULL;
        RETURN QUERY UPDATE ledger.work u SET ready_at = until
        FROM (SELECT w.tenant_id, w.id FROM ledger.work w WHERE w.tenant_id = tenants[i] AND w.priority = level AND w.ready_at <= t
          ORDER BY w.ready_at, w.id LIMIT quota FOR UPDATE SKIP LOCKED) picked
        WHERE u.tenant_id = picked.tenant_id AND u.id = picked.id
        RETURNING turn, u.tenant_id, u.id, u.seq;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        quota := quota - found_now;
        room := room - found_now;
        left_of[i] := left_of[i] - found_now;
      END LOOP;
    END LOOP;
  END LOOP;
END $$;

-- Due work with its rows, each read with the identity of its tenant's runtime, and the hash of the last version of the function
-- that each request names. It does not have the owner's rights, so row-level security applies.
CREATE FUNCTION ledger.take(after text, most integer, hold_ms bigint, only_tenants text[], per_tenant integer, rooms json)
RETURNS TABLE (turn integer, function_hash text, request ledger.universal_registry)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  work record;
  next_one record;
  -- The bytes of large requests that may still be returned. Small requests are always returned.
  room bigint := 33554432;
BEGIN
  FOR work IN
    SELECT found.turn, found.tenant_id, array_agg(found.id ORDER BY found.k) AS ids, array_agg(found.seq ORDER BY found.k) AS seqs
    FROM (
      SELECT h.turn, h.tenant_id, h.id, h.seq, h.n AS k
      FROM ledger.hold_due(after, most, hold_ms, only_tenants, per_tenant, rooms) WITH ORDINALITY AS h(turn, tenant_id, id, seq, n) WHERE hold_ms > 0
      UNION ALL
      (SELECT c.turn, c.tenant_id, c.id, c.seq, row_number() OVER (PARTITION BY c.turn ORDER BY c.n) AS k
      FROM ledger.claimable(after, most, only_tenants, per_tenant, rooms) WITH ORDINALITY AS c(turn, tenant_id, owner_id, id, seq, curr_hash, n)
      WHERE hold_ms = 0 ORDER BY k, c.turn LIMIT most)) found
    GROUP BY found.turn, found.tenant_id ORDER BY found.turn
  LOOP
    PERFORM ledger.identify('logline_runtime', work.tenant_id, '', '');
    turn := work.turn;
    FOR next_one IN
      -- With this order the planner uses the primary key, even if the table has no statistics yet.
      SELECT (SELECT CASE WHEN NOT f.is_deleted THEN f.curr_hash END FROM ledger.universal_registry f
          WHERE f.tenant_id = work.tenant_id AND f.id = (last.span).parent_id ORDER BY f.seq DESC LIMIT 1) AS function_hash,
        last.span, ledger.bytes((last.span).input, (last.span).output, (last.span).error, (last.span).content,
          (last.span).metadata, (last.span).code, (last.span).description) AS bytes
      FROM unnest(work.ids, work.seqs) WITH ORDINALITY AS w(id, seq, k)
      CROSS JOIN LATERAL (SELECT u AS span FROM ledger.universal_registry u WHERE u.tenant_id = work.tenant_id AND u.id = w.id
        ORDER BY u.seq DESC LIMIT 1) last
      WHERE (last.span).seq = w.seq ORDER BY w.k
    LOOP
      IF next_one.bytes > 262144 THEN
        CONTINUE WHEN room < next_one.bytes;
        room := room - next_one.bytes;
      END IF;
      function_hash := next_one.function_hash;
      request := next_one.span;
      RETURN NEXT;
    END LOOP;
  END LOOP;
END $$;

-- Whether the request with this last version is due and not leased.
CREATE FUNCTION ledger.is_due(tenant text, request uuid, version integer, hash text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM ledger.work w WHERE w.tenant_id = tenant AND w.id = request AND w.seq = version AND w.curr_hash = hash
    AND w.ready_at <= clock_timestamp() AND ledger.is_within(tenant))
$$;

-- Extends the leases of claims of one tenant, if each is still the last version of its request. `requests` are in order and each stands
-- there once, so that hosts lock in one order.
CREATE FUNCTION ledger.hold_claims(tenant text, requests uuid[], versions integer[], hashes text[], leases_ms bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kept bigint;
BEGIN
  -- Tries twice. If the first UPDATE waited for a rebuild, only a new snapshot shows the rows that the rebuild made.
  FOR attempt IN 1 .. 2 LOOP
    IF cardinality(requests) > 1 THEN
      PERFORM FROM ledger.work w WHERE w.tenant_id = tenant AND w.id = ANY (requests) AND ledger.is_within(tenant) ORDER BY w.id FOR UPDATE;
    END IF;
    UPDATE ledger.work w SET ready_at = clock_timestamp() + c.ms * interval '1 ms', parked = NULL
    FROM unnest(requests, versions, hashes, leases_ms) AS c(id, seq, hash, ms)
    WHERE w.tenant_id = tenant AND w.id = c.id AND w.seq = c.seq AND w.curr_hash = c.hash AND w.leased
      AND ledger.is_within(tenant);
    GET DIAGNOSTICS kept = ROW_COUNT;
    EXIT WHEN kept = cardinality(requests);
  END LOOP;
  RETURN kept = cardinality(requests);
END $$;

-- Keeps requests from being offered until the given times. A row that is locked is about to have another version, so it is left
-- alone.
CREATE FUNCTION ledger.park(tenant text, ids uuid[], seqs integer[], untils timestamptz[], reasons text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE ledger.work u SET ready_at = a.until, parked = a.reason
  FROM unnest(ids, seqs, untils, reasons) AS a(id, seq, until, reason)
  WHERE u.tenant_id = tenant AND u.id = a.id AND u.seq = a.seq AND ledger.is_within(tenant)
    AND u.id IN (SELECT w.id FROM ledger.work w WHERE w.tenant_id = tenant AND w.id = ANY (ids) ORDER BY w.id FOR UPDATE SKIP LOCKED)
$$;

-- What the queue knows of a request. The time is null if it is never due.
CREATE FUNCTION ledger.waiting(tenant text, request uuid)
RETURNS TABLE (owner_id text, seq integer, curr_hash text, ready_micros bigint, leased boolean, parked text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT w.owner_id, w.seq, w.curr_hash,
    CASE WHEN isfinite(w.ready_at) THEN (extract(epoch FROM w.ready_at) * 1000000)::bigint END, w.leased, w.parked
  FROM ledger.work w WHERE w.tenant_id = tenant AND w.id = request AND ledger.is_within(tenant)
$$;

-- The open requests: of `only_tenants`, or of all if that is null. For hosts, as `claimable`.
CREATE FUNCTION ledger.list_open(after_tenant text, after_id uuid, most integer, only_tenants text[])
RETURNS TABLE (tenant_id text, owner_id text, id uuid, seq integer, curr_hash text, ready_micros bigint, leased boolean, parked text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT w.tenant_id, w.owner_id, w.id, w.seq, w.curr_hash,
    CASE WHEN isfinite(w.ready_at) THEN (extract(epoch FROM w.ready_at) * 1000000)::bigint END, w.leased, w.parked
  FROM ledger.work w
  WHERE (w.tenant_id, w.id) > (after_tenant, after_id) AND (only_tenants IS NULL OR w.tenant_id = ANY (only_tenants))
  ORDER BY w.tenant_id, w.id LIMIT least(greatest(most, 0), 1000)
$$;

-- How many units of a quota a tenant has used today.
CREATE FUNCTION ledger.used(tenant text, quota_key text) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT greatest(q.used, 0) FROM ledger.quota q
    WHERE q.tenant_id = tenant AND q.key = quota_key AND q.day = ledger.today() AND ledger.is_within(tenant)), 0)
$$;

-- What tenants have used today. The counters are locked, in the order of tenant names, until the transaction ends. An append
-- that must lock counters calls this first. `n` numbers the arguments.
CREATE FUNCTION ledger.hold_counters(tenants text[], keys text[]) RETURNS TABLE (n bigint, used bigint, day text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
  INSERT INTO ledger.quota AS q (tenant_id, key, day, used)
  SELECT DISTINCT a.tenant COLLATE "C" AS tenant, a.key COLLATE "C" AS key, ledger.today(), 0
  FROM unnest(tenants, keys) AS a(tenant, key) WHERE ledger.is_within(a.tenant) ORDER BY 1, 2
  ON CONFLICT (tenant_id, key) DO UPDATE SET day = EXCLUDED.day, used = 0 WHERE q.day < EXCLUDED.day;
  -- Midnight passed while this waited for the counter: the day of this transaction is over.
  IF EXISTS (SELECT FROM unnest(tenants, keys) AS a(tenant, key)
    JOIN ledger.quota q ON q.tenant_id = a.tenant AND q.key = a.key WHERE q.day > ledger.today()) THEN
    RAISE EXCEPTION 'the day of this transaction is over'
      USING ERRCODE = 'serialization_failure', HINT = 'retry in a new transaction';
  END IF;
  RETURN QUERY SELECT a.n, CASE WHEN q.day = ledger.today() THEN q.used ELSE 0 END, to_char(ledger.today(), 'YYYY-MM-DD')
  FROM unnest(tenants, keys) WITH ORDINALITY AS a(tenant, key, n)
  JOIN ledger.quota q ON q.tenant_id = a.tenant AND q.key = a.key WHERE ledger.is_within(a.tenant);
END $$;

-- Rebuilds the tables from the registry. Appends wait meanwhile.
CREATE FUNCTION ledger.rebuild_work() RETURNS TABLE (open bigint, active bigint, counters bigint) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- In the order in which appends that lock counters take these locks.
  LOCK TABLE ledger.quota, ledger.work, ledger.active, ledger.universal_registry IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM ledger.work;
  DELETE FROM ledger.active;
  DELETE FROM ledger.quota;
  INSERT INTO ledger.active (kind, tenant_id, id, seq, owner_id, curr_hash)
  SELECT ledger.active_as(l.entity_type, l.status, l.is_deleted), l.tenant_id, l.id, l.seq, l.owner_id, l.curr_hash
  FROM (SELECT DISTINCT ON (u.tenant_id, u.id) u.* FROM ledger.universal_registry u
    WHERE u.entity_type IN ('function', 'policy') ORDER BY u.tenant_id, u.id, u.seq DESC) l
  WHERE ledger.active_as(l.entity_type, l.status, l.is_deleted) IS NOT NULL;
  INSERT INTO ledger.work (tenant_id, id, seq, owner_id, curr_hash, priority, ready_at, leased)
  SELECT l.tenant_id, l.id, l.seq, l.owner_id, l.curr_hash, coalesce(ledger.number_in(l.metadata, 'priority', 9), 5),
    ledger.ready_at(l.claimed, l.metadata), l.claimed
  FROM (SELECT DISTINCT ON (u.tenant_id, u.id) u.*, ledger.is_claim(u.prev_hash, u.status, u.is_deleted) AS claimed
    FROM ledger.universal_registry u WHERE u.entity_type = 'request' ORDER BY u.tenant_id, u.id, u.seq DESC) l
  WHERE (l.claimed OR (l.status = 'scheduled' AND NOT l.is_deleted)) AND l.seq < 2147483647
  ORDER BY l.epoch, l.xid, l.pos;
  INSERT INTO ledger.quota (tenant_id, key, day, used)
  SELECT u.tenant_id, c.key, ledger.today(), sum(c.units)::bigint
  FROM (SELECT r.*, ledger.charged_as(r.entity_type, r.prev_hash, r.status, r.did, r.is_deleted) AS charged
    FROM ledger.universal_registry r
    WHERE r.entity_type IN ('request', 'outside_request', 'outside_outcome', 'provider_request', 'provider_execution')) u
  CROSS JOIN LATERAL ledger.charges(u.charged, u.metadata, ledger.today()) AS c
  GROUP BY u.tenant_id, c.key;
  RETURN QUERY SELECT (SELECT count(*) FROM ledger.work), (SELECT count(*) FROM ledger.active), (SELECT count(*) FROM ledger.quota);
END $$;

-- How many rows of the tables are wrong. All rows that the tables have are checked. Open requests that are missing are looked
-- for among the newest 100 requests of each tenant.
CREATE FUNCTION ledger.stray_work() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE tenants AS (
    (SELECT u.tenant_id FROM ledger.universal_registry u ORDER BY u.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT u.tenant_id FROM ledger.universal_registry u WHERE u.tenant_id > t.tenant_id ORDER BY u.tenant_id LIMIT 1)
    FROM tenants t WHERE t.tenant_id IS NOT NULL)
  SELECT (SELECT count(*) FROM ledger.work w WHERE NOT EXISTS (
      SELECT FROM ledger.universal_registry u WHERE u.tenant_id = w.tenant_id AND u.id = w.id AND u.seq = w.seq
        AND u.curr_hash = w.curr_hash AND u.entity_type = 'request')
    OR EXISTS (SELECT FROM ledger.universal_registry u WHERE u.tenant_id = w.tenant_id AND u.id = w.id AND u.seq > w.seq))
  + (SELECT count(*) FROM ledger.active s WHERE NOT EXISTS (
      SELECT FROM ledger.universal_registry u WHERE u.tenant_id = s.tenant_id AND u.id = s.id AND u.seq = s.seq
        AND u.curr_hash = s.curr_hash AND ledger.active_as(u.entity_type, u.status, u.is_deleted) = s.kind)
    OR EXISTS (SELECT FROM ledger.universal_registry u WHERE u.tenant_id = s.tenant_id AND u.id = s.id AND u.seq > s.seq))
  + (SELECT count(*) FROM tenants t CROSS JOIN LATERAL (
      SELECT u.* FROM ledger.universal_registry u WHERE u.tenant_id = t.tenant_id AND u.entity_type = 'request'
      ORDER BY u.epoch DESC, u.xid DESC, u.pos DESC LIMIT 100) u
    WHERE (ledger.is_claim(u.prev_hash, u.status, u.is_deleted) OR (u.status = 'scheduled' AND NOT u.is_deleted))
      AND u.seq < 2147483647
      AND NOT EXISTS (SELECT FROM ledger.universal_registry v
        WHERE v.tenant_id = u.tenant_id AND v.id = u.id AND v.seq > u.seq)
      AND NOT EXISTS (SELECT FROM ledger.work w WHERE w.tenant_id = u.tenant_id AND w.id = u.id AND w.seq = u.seq))
$$;

REVOKE EXECUTE ON FUNCTION ledger.today(), ledger.number_in(json, text, numeric), ledger.time_in(json, text),
  ledger.is_claim(text, text, boolean), ledger.ready_at(boolean, json), ledger.charges(text, json, date), ledger.charged_as(text, text, text, text, boolean), ledger.ends_attempt(text, text, boolean), ledger.keep_work(), ledger.keep_counters(), ledger.claimable(text, integer, text[], integer, json),
  ledger.active_as(text, text, boolean), ledger.keep_active(), ledger.list_active(text, text, uuid, integer, text[]),
  ledger.take(text, integer, bigint, text[], integer, json), ledger.hold_due(text, integer, bigint, text[], integer, json), ledger.is_due(text, uuid, integer, text),
  ledger.hold_claims(text, uuid[], integer[], text[], bigint[]), ledger.next_tenant(text, text[]),
  ledger.park(text, uuid[], integer[], timestamptz[], text[]), ledger.waiting(text, uuid), ledger.list_open(text, uuid, integer, text[]),
  ledger.refuse_active(text, text, uuid[], integer[]), ledger.offer_active(text, text[]), ledger.touched(integer, xid8),
  ledger.used(text, text), ledger.hold_counters(text[], text[]), ledger.rebuild_work(), ledger.stray_work() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.claimable(text, integer, text[], integer, json), ledger.list_active(text, text, uuid, integer, text[]), ledger.take(text, integer, bigint, text[], integer, json), ledger.hold_due(text, integer, bigint, text[], integer, json), ledger.is_due(text, uuid, integer, text),
  ledger.hold_claims(text, uuid[], integer[], text[], bigint[]), ledger.park(text, uuid[], integer[], timestamptz[], text[]), ledger.waiting(text, uuid), ledger.list_open(text, uuid, integer, text[]),
  ledger.refuse_active(text, text, uuid[], integer[]), ledger.offer_active(text, text[]), ledger.touched(integer, xid8),
  ledger.used(text, text), ledger.hold_counters(text[], text[]) TO logline_runtime, logline_operator;
GRANT EXECUTE ON FUNCTION ledger.rebuild_work() TO logline_operator;
GRANT EXECUTE ON FUNCTION ledger.stray_work() TO logline_app, logline_runtime, logline_operator;

SELECT ledger.rebuild_work();
