-- Vectors of memories, if the database has pgvector 0.8 or newer. Runs as logline_owner at every migration, after the others, and does
-- nothing if the table is there. `logline.vectors` says whether it made anything.
SELECT set_config('logline.vectors', 'no', true);
DO $do$
DECLARE
  s text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND string_to_array(e.extversion, '.')::integer[] >= '{0,8}');
BEGIN
  IF s IS NULL OR to_regclass('ledger.memory_vectors') IS NOT NULL THEN
    RETURN;
  END IF;
  PERFORM set_config('logline.vectors', 'made', true);
  -- A vector goes with its entry, in the same statement.
  EXECUTE replace($sql$
    CREATE TABLE ledger.memory_vectors (
      tenant_id  text    COLLATE "C" NOT NULL,
      id         uuid    NOT NULL,
      model      text    COLLATE "C" NOT NULL,
      version    text    COLLATE "C" NOT NULL,
      dimensions integer NOT NULL,
      value      @.vector NOT NULL,
      CONSTRAINT memory_vectors_key PRIMARY KEY (tenant_id, id, model, version, dimensions),
      CONSTRAINT memory_vectors_entry FOREIGN KEY (tenant_id, id) REFERENCES ledger.memories ON DELETE CASCADE
    ) $sql$, '@.', s || '.');
  ALTER TABLE ledger.memory_vectors ENABLE ROW LEVEL SECURITY;
  ALTER TABLE ledger.memory_vectors FORCE ROW LEVEL SECURITY;
  CREATE POLICY owner_vectors ON ledger.memory_vectors TO logline_owner USING (true) WITH CHECK (true);

  -- Stores the vector of a last version. False if there is no such entry in the tenant of the current identity.
  EXECUTE replace($sql$
    CREATE FUNCTION ledger.put_vector(span uuid, of_seq integer, of_model text, of_version text, of_dimensions integer, of_value real[])
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
      IF cardinality(of_value) IS DISTINCT FROM of_dimensions THEN
        RAISE EXCEPTION 'the vector has % dimensions, its model %', cardinality(of_value), of_dimensions USING ERRCODE = 'data_exception';
      END IF;
      -- The lock keeps the entry until the vector is stored.
      PERFORM FROM ledger.memories m WHERE m.tenant_id = app.current_tenant_id() AND m.id = span AND m.seq = of_seq FOR KEY SHARE;
      IF NOT FOUND THEN
        RETURN false;
      END IF;
      INSERT INTO ledger.memory_vectors AS v (tenant_id, id, model, version, dimensions, value)
      VALUES (app.current_tenant_id(), span, of_model, of_version, of_dimensions, of_value::@.vector)
      ON CONFLICT (tenant_id, id, model, version, dimensions) DO UPDATE SET value = EXCLUDED.value;
      RETURN true;
    END $$ $sql$, '@.', s || '.');

  -- The entries of the current identity's tenant that have no vector of a model.
  CREATE FUNCTION ledger.pending_vectors(of_model text, of_version text, of_dimensions integer, after_id uuid, most integer)
  RETURNS TABLE (id uuid, seq integer, curr_hash text) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.id, m.seq, m.curr_hash FROM ledger.memories m
    WHERE m.tenant_id = app.current_tenant_id() AND m.id > after_id AND NOT EXISTS (SELECT FROM ledger.memory_vectors v
      WHERE v.tenant_id = m.tenant_id AND v.id = m.id AND v.model = of_model AND v.version = of_version AND v.dimensions = of_dimensions)
    ORDER BY m.id LIMIT least(greatest(most, 0), 1000)
  $$;

  -- The name of the approximate index of a model.
  CREATE FUNCTION ledger.vector_index(of_model text, of_version text, of_dimensions integer) RETURNS text LANGUAGE sql IMMUTABLE
  RETURN 'memory_vectors_' || left(encode(sha256(convert_to(array_to_json(ARRAY[of_model, of_version, of_dimensions::text])::text, 'UTF8')),
    'hex'), 24);

  -- Makes the approximate index of a model, for places of more than 20,000 memories. Appends wait while it is made.
  EXECUTE replace($sql$
    CREATE FUNCTION ledger.index_vectors(of_model text, of_version text, of_dimensions integer) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
      IF of_dimensions NOT BETWEEN 1 AND 2000 THEN
        RAISE EXCEPTION 'pgvector indexes up to 2000 dimensions' USING ERRCODE = 'invalid_parameter_value';
      END IF;
      EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON ledger.memory_vectors USING hnsw ((value::@.vector(%s)) @.vector_ip_ops)
        WHERE model = %L AND version = %L AND dimensions = %s', ledger.vector_index(of_model, of_version, of_dimensions), of_dimensions,
        of_model, of_version, of_dimensions);
    END $$ $sql$, '@.', s || '.');

  -- Finds memories by a vector, those with the greatest cosine first (vectors have length 1). All vectors of a place are compared,
  -- because an index of all tenants' vectors would give those of others first. In a large place with an index, that is asked, again and
  -- again until enough of what it gives is in the place (an iterative scan); if it gives too few, all are compared.
  EXECUTE replace($sql$
    CREATE FUNCTION ledger.search_vector(scope text, session text, named_owner text, of_model text, of_version text, of_dimensions integer,
      near real[], at timestamptz, most integer, only_kinds text[], all_tags text[], only_tenants text[])
    RETURNS TABLE (tenant_id text, id uuid, seq integer, curr_hash text, score float8)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_bitmapscan = on SET plan_cache_mode = force_custom_plan AS $$
    DECLARE
      here text := ledger.searched_place(scope, session, named_owner);
      room integer := least(greatest(most, 0), 200);
      filter text := '%s = $1 AND ledger.is_searched($2, m.tenant_id, m.owner_id, $3) AND (m.ttl_at IS NULL OR m.ttl_at > $4)
        AND ($5 IS NULL OR m.kind = ANY ($5)) AND ($6 IS NULL OR m.tags @> $6)
        AND ($7 IS NULL OR $2 <> ''public'' OR m.tenant_id = ANY ($7))';
      statement text := 'SELECT m.tenant_id, m.id, m.seq, m.curr_hash, -(%1$s OPERATOR(@.<#>) $8::@.vector) FROM ledger.memory_vectors v
        JOIN ledger.memories m ON m.tenant_id = v.tenant_id AND m.id = v.id WHERE v.model = %2$L AND v.version = %3$L AND v.dimensions = %4$s
        AND %5$s ORDER BY %1$s OPERATOR(@.<#>) $8::@.vector %6$s LIMIT $9';
      is_large boolean;
      tenants text[];
      ids uuid[];
      seqs integer[];
      hashes text[];
      scores float8[];
    BEGIN
      IF here IS NULL OR room = 0 OR cardinality(near) IS DISTINCT FROM of_dimensions THEN
        RETURN;
      END IF;
      filter := format(filter, CASE scope WHEN 'session' THEN 'm.session_place' ELSE 'm.place' END);
      is_large := to_regclass('ledger.' || ledger.vector_index(of_model, of_version, of_dimensions)) IS NOT NULL
        AND (SELECT count(*) FROM (SELECT FROM ledger.memories m WHERE m.place = here LIMIT 20001) AS counted) > 20000;
      IF is_large THEN
        PERFORM set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', greatest(room, 40)::text, true);
        EXECUTE format('SELECT array_agg(f.tenant_id), array_agg(f.id), array_agg(f.seq), array_agg(f.curr_hash), array_agg(f.score)
          FROM (%s) AS f(tenant_id, id, seq, curr_hash, score)',
          format(statement, format('v.value::@.vector(%s)', of_dimensions), of_model, of_version, of_dimensions, filter, ''))
        INTO tenants, ids, seqs, hashes, scores USING here, scope, named_owner, at, only_kinds, all_tags, only_tenants, near, room;
        IF cardinality(ids) >= room THEN
          RETURN QUERY SELECT f.* FROM unnest(tenants, ids, seqs, hashes, scores) AS f(tenant_id, id, seq, curr_hash, score)
          ORDER BY f.score DESC, f.id DESC;
          RETURN;
        END IF;
      END IF;
      RETURN QUERY EXECUTE format(statement, 'v.value', of_model, of_version, of_dimensions, filter, ', m.id DESC')
      USING here, scope, named_owner, at, only_kinds, all_tags, only_tenants, near, room;
    END $$ $sql$, '@.', s || '.');

  REVOKE EXECUTE ON FUNCTION ledger.put_vector(uuid, integer, text, text, integer, real[]),
    ledger.pending_vectors(text, text, integer, uuid, integer), ledger.vector_index(text, text, integer),
    ledger.index_vectors(text, text, integer),
    ledger.search_vector(text, text, text, text, text, integer, real[], timestamptz, integer, text[], text[], text[]) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION ledger.put_vector(uuid, integer, text, text, integer, real[]),
    ledger.pending_vectors(text, text, integer, uuid, integer) TO logline_runtime;
  GRANT EXECUTE ON FUNCTION ledger.index_vectors(text, text, integer) TO logline_operator;
  GRANT EXECUTE ON FUNCTION
    ledger.search_vector(text, text, text, text, text, integer, real[], timestamptz, integer, text[], text[], text[])
  TO logline_app, logline_runtime;
END $do$;
