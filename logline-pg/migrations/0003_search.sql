-- The index of public memories: their words, and where each is found. It follows from the registry, and changes in the statement that
-- adds a row to it. Only the functions below read or write it. Runs as logline_owner inside the migration's transaction.

-- English stems, and no stop words: a name may be one. The parser would take addresses and numbers with signs as one word each, so
-- signs become spaces first, in texts as in queries.
CREATE TEXT SEARCH DICTIONARY ledger.stems (TEMPLATE = pg_catalog.snowball, LANGUAGE = english);
CREATE TEXT SEARCH CONFIGURATION ledger.memory (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION ledger.memory
ALTER MAPPING FOR asciiword, word, numword, asciihword, hword, numhword, hword_asciipart, hword_part, hword_numpart WITH ledger.stems;

-- Lower case for letters of every script, also in a database with the locale C.
DO $do$ BEGIN
  EXECUTE format($f$
    CREATE FUNCTION ledger.plain(words text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(regexp_replace(words, '[\u0001-\u002f:-@\[-`{-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u2000-\u206f\u3000-\u3004\u3008-\u3020\uff01-\uff0f\ufeff]+', ' ', 'g') COLLATE %s) $f$,
    coalesce((SELECT format('%I.%I', n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
      WHERE n.nspname = 'pg_catalog' AND c.collname IN ('und-x-icu', 'C.utf8', 'C.UTF-8', 'en_US.utf8')
        AND c.collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
      ORDER BY array_position(ARRAY['und-x-icu', 'C.utf8', 'C.UTF-8', 'en_US.utf8'], c.collname::text) LIMIT 1), 'pg_catalog."default"'));
END $do$;

-- Where a memory is found: a text that stands for one tenant, one owner, or one session. It is indexed with the words, so that the scope
-- of a search is part of what is looked up.
CREATE FUNCTION ledger.place(kind text, names text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '~' || kind || left(encode(sha256(convert_to(array_to_json(names)::text, 'UTF8')), 'hex'), 32);

CREATE TABLE ledger.memories (
  tenant_id     text     COLLATE "C" NOT NULL,
  id            uuid     NOT NULL,
  seq           integer  NOT NULL,
  owner_id      text     COLLATE "C" NOT NULL,
  curr_hash     text     COLLATE "C" NOT NULL,
  -- Null if it is found in its session only.
  place         text     COLLATE "C",
  session_place text     COLLATE "C",
  kind          text     COLLATE "C" NOT NULL,
  tags          text[]   COLLATE "C" NOT NULL,
  ttl_at        timestamptz,
  -- The number of its words.
  length        integer  NOT NULL,
  -- The stems of its words, and its places.
  lexemes       tsvector NOT NULL,
  CONSTRAINT memories_span PRIMARY KEY (tenant_id, id)
);
CREATE INDEX memories_place ON ledger.memories (place) WHERE place IS NOT NULL;
CREATE INDEX memories_session ON ledger.memories (session_place) WHERE session_place IS NOT NULL;
-- Without a list of pending rows, which every search would read through.
CREATE INDEX memories_words ON ledger.memories USING gin (lexemes) WITH (fastupdate = off);

ALTER TABLE ledger.memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.memories FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_memories ON ledger.memories TO logline_owner USING (true) WITH CHECK (true);

-- The entry of a memory, as `logline_core::ledger::SearchEntry::of`: no row if it is not to be found.
CREATE FUNCTION ledger.memory_entry(span ledger.universal_registry) RETURNS SETOF ledger.memories LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  session text;
  ends_at timestamptz;
  words text;
  at text;
  at_session text;
BEGIN
  IF span.entity_type <> 'memory' OR span.is_deleted OR coalesce(span.status, '') NOT IN ('active', 'needs_review')
    OR json_typeof(span.metadata -> 'sensitivity') IS DISTINCT FROM 'string' OR span.metadata ->> 'sensitivity' <> 'public'
    OR json_typeof(span.content) IS DISTINCT FROM 'object' OR json_typeof(span.content -> 'text') IS DISTINCT FROM 'string' THEN
    RETURN;
  END IF;
  IF coalesce(json_typeof(span.metadata -> 'session_id'), 'null') <> 'null' THEN
    session := span.metadata ->> 'session_id';
    IF json_typeof(span.metadata -> 'session_id') <> 'string' OR octet_length(session) > 256 THEN
      RETURN;
    END IF;
  END IF;
  IF coalesce(json_typeof(span.metadata -> 'ttl_at'), 'null') <> 'null' THEN
    ends_at := ledger.time_in(span.metadata, 'ttl_at');
    IF ends_at IS NULL THEN
      RETURN;
    END IF;
  END IF;
  words := ledger.plain(left(span.content ->> 'text', 16384));
  IF json_typeof(span.metadata -> 'layer') IS DISTINCT FROM 'string' OR span.metadata ->> 'layer' <> 'session' THEN
    at := CASE span.visibility WHEN 'private' THEN ledger.place('p', ARRAY[span.tenant_id, span.owner_id])
      WHEN 'tenant' THEN ledger.place('t', ARRAY[span.tenant_id]) WHEN 'public' THEN ledger.place('u', '{}') END;
  END IF;
  IF session IS NOT NULL THEN
    at_session := ledger.place('s', ARRAY[span.tenant_id, span.owner_id, session]);
  END IF;
  RETURN QUERY SELECT span.tenant_id, span.id, span.seq, span.owner_id, span.curr_hash, at, at_session,
    CASE WHEN starts_with(span.this, 'memory.') THEN substr(span.this, 8) ELSE 'other' END,
    ARRAY(SELECT e.tag #>> '{}' FROM json_array_elements(
        CASE WHEN json_typeof(span.metadata -> 'tags') = 'array' THEN span.metadata -> 'tags' ELSE '[]' END) WITH ORDINALITY AS e(tag, n)
      WHERE json_typeof(e.tag) = 'string' AND octet_length(e.tag #>> '{}') <= 256 ORDER BY e.n LIMIT 32),
    ends_at, cardinality(regexp_split_to_array(btrim(words), ' +')),
    to_tsvector('ledger.memory', words) || array_to_tsvector(array_remove(ARRAY[at, at_session], NULL));
END $$;

CREATE FUNCTION ledger.keep_memories() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Its vectors go with it.
  DELETE FROM ledger.memories m WHERE m.tenant_id = NEW.tenant_id AND m.id = NEW.id AND m.seq < NEW.seq;
  INSERT INTO ledger.memories SELECT e.* FROM ledger.memory_entry(NEW) e ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER ur_memories AFTER INSERT ON ledger.universal_registry
FOR EACH ROW WHEN (NEW.entity_type = 'memory') EXECUTE FUNCTION ledger.keep_memories();

-- The place in which the current identity searches. Null if it has none: then nothing is found. A runtime names the owner; a user is the
-- owner, whatever the call says.
CREATE FUNCTION ledger.searched_place(scope text, session text, named_owner text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE scope WHEN 'session' THEN ledger.place('s', ARRAY[i.tenant, i.owner, session])
    WHEN 'private' THEN ledger.place('p', ARRAY[i.tenant, i.owner])
    WHEN 'tenant' THEN ledger.place('t', ARRAY[i.tenant]) WHEN 'public' THEN ledger.place('u', '{}') END
  FROM (SELECT app.current_tenant_id() AS tenant, current_setting('role', true) AS role,
    CASE current_setting('role', true) WHEN 'logline_app' THEN app.current_user_id() WHEN 'logline_runtime' THEN nullif(named_owner, '')
      END AS owner) i
  WHERE i.tenant IS NOT NULL AND i.role IN ('logline_app', 'logline_runtime') AND (i.role = 'logline_runtime' OR i.owner IS NOT NULL)
    AND (scope NOT IN ('session', 'private') OR i.owner IS NOT NULL) AND (scope <> 'session' OR session IS NOT NULL)
$$;

-- Whether an entry at the searched place is the current identity's to find. The place says this already; a hash alone should not stand
-- between tenants.
CREATE FUNCTION ledger.is_searched(scope text, tenant_id text, owner_id text, named_owner text) RETURNS boolean LANGUAGE sql STABLE
RETURN CASE WHEN scope = 'public' THEN true WHEN tenant_id <> app.current_tenant_id() THEN false WHEN scope = 'tenant' THEN true
  ELSE owner_id = CASE current_setting('role', true) WHEN 'logline_app' THEN app.current_user_id() ELSE named_owner END END;

-- Finds memories by words, the best first: BM25 with the numbers of the searched place, and of no other. (As in
-- `logline_core::ledger::search`, with each word counted once. `ts_rank` does not know which words are rare.)
CREATE FUNCTION ledger.search_text(scope text, session text, named_owner text, words text[], at timestamptz, most integer,
  only_kinds text[], all_tags text[], only_tenants text[])
RETURNS TABLE (tenant_id text, id uuid, seq integer, curr_hash text, score float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- An index of words is read by a bitmap only, and which index is the right one depends on the words.
SET enable_bitmapscan = on SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  here text := ledger.searched_place(scope, session, named_owner);
  queries tsquery[];
  any_word tsquery;
  query tsquery;
  entries bigint;
BEGIN
  IF here IS NULL THEN
    RETURN;
  END IF;
  queries := ARRAY(SELECT q.query FROM (SELECT plainto_tsquery('ledger.memory', ledger.plain(left(w.word, 64))) AS query
    FROM unnest(words[1:32]) AS w(word)) q WHERE numnode(q.query) > 0);
  FOREACH query IN ARRAY queries LOOP
    any_word := CASE WHEN any_word IS NULL THEN query ELSE any_word || query END;
  END LOOP;
  IF any_word IS NULL THEN
    RETURN;
  END IF;
  IF scope = 'session' THEN
    SELECT count(*) INTO entries FROM ledger.memories m WHERE m.session_place = here;
  ELSE
    SELECT count(*) INTO entries FROM ledger.memories m WHERE m.place = here;
  END IF;
  RETURN QUERY
    WITH found AS MATERIALIZED (
      SELECT m.tenant_id, m.id, m.seq, m.curr_hash, m.length, m.lexemes FROM ledger.memories m
      WHERE m.lexemes @@ (quote_literal(here)::tsquery && any_word) AND (m.ttl_at IS NULL OR m.ttl_at > at)
        AND ledger.is_searched(scope, m.tenant_id, m.owner_id, named_owner)
        AND (only_kinds IS NULL OR m.kind = ANY (only_kinds)) AND (all_tags IS NULL OR m.tags @> all_tags)
        AND (only_tenants IS NULL OR scope <> 'public' OR m.tenant_id = ANY (only_tenants))),
    counted AS (
      SELECT f.tenant_id, f.id, f.length, count(*) OVER (PARTITION BY q.n) AS with_word
      FROM found f CROSS JOIN unnest(queries) WITH ORDINALITY AS q(query, n) WHERE f.lexemes @@ q.query),
    mean AS (SELECT greatest(avg(f.length), 1)::float8 AS length FROM found f),
    scored AS (
      SELECT c.tenant_id, c.id, sum(ln(1 + greatest(entries - c.with_word, 0) / (c.with_word + 0.5::float8))
        * 2.2 / (1 + 1.2 * (0.25 + 0.75 * c.length / mean.length))) AS score
      FROM counted c CROSS JOIN mean GROUP BY c.tenant_id, c.id)
    SELECT f.tenant_id, f.id, f.seq, f.curr_hash, s.score FROM scored s JOIN found f ON f.tenant_id = s.tenant_id AND f.id = s.id
    ORDER BY s.score DESC, f.id DESC, f.tenant_id LIMIT least(greatest(most, 0), 200);
END $$;

-- Finds memories that have words like those of a query, where the database has pg_trgm (`trigrams.sql` then replaces both functions).
CREATE FUNCTION ledger.has_trigrams() RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN false;
CREATE FUNCTION ledger.search_similar(scope text, session text, named_owner text, words text[], at timestamptz, most integer,
  only_kinds text[], all_tags text[], only_tenants text[])
RETURNS TABLE (tenant_id text, id uuid, seq integer, curr_hash text, score float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN;
END $$;

-- Makes the index again from the registry. Its vectors are gone. Appends wait meanwhile.
CREATE FUNCTION ledger.rebuild_memories() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  LOCK TABLE ledger.universal_registry IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM ledger.memories;
  INSERT INTO ledger.memories SELECT e.* FROM (
    SELECT DISTINCT ON (u.tenant_id, u.id) u AS span FROM ledger.universal_registry u
    WHERE u.entity_type = 'memory' ORDER BY u.tenant_id, u.id, u.seq DESC) l
  CROSS JOIN LATERAL ledger.memory_entry(l.span) e;
  RETURN (SELECT count(*) FROM ledger.memories);
END $$;

-- How many entries of the index are not of a last version.
CREATE FUNCTION ledger.stray_memories() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FROM ledger.memories m WHERE NOT EXISTS (
      SELECT FROM ledger.universal_registry u WHERE u.tenant_id = m.tenant_id AND u.id = m.id AND u.seq = m.seq
        AND u.curr_hash = m.curr_hash AND u.owner_id = m.owner_id)
    OR EXISTS (SELECT FROM ledger.universal_registry u WHERE u.tenant_id = m.tenant_id AND u.id = m.id AND u.seq > m.seq)
$$;

REVOKE EXECUTE ON FUNCTION ledger.plain(text), ledger.place(text, text[]), ledger.memory_entry(ledger.universal_registry),
  ledger.keep_memories(), ledger.searched_place(text, text, text), ledger.is_searched(text, text, text, text),
  ledger.search_text(text, text, text, text[], timestamptz, integer, text[], text[], text[]), ledger.rebuild_memories(),
  ledger.search_similar(text, text, text, text[], timestamptz, integer, text[], text[], text[]), ledger.has_trigrams(),
  ledger.stray_memories() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.search_text(text, text, text, text[], timestamptz, integer, text[], text[], text[]),
  ledger.search_similar(text, text, text, text[], timestamptz, integer, text[], text[], text[])
TO logline_app, logline_runtime;
GRANT EXECUTE ON FUNCTION ledger.has_trigrams() TO logline_app, logline_runtime, logline_operator;
GRANT EXECUTE ON FUNCTION ledger.rebuild_memories() TO logline_operator;
GRANT EXECUTE ON FUNCTION ledger.stray_memories() TO logline_app, logline_runtime, logline_operator;

SELECT ledger.rebuild_memories();
