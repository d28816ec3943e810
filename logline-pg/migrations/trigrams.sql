-- Memories with words like those of a query, if the database has pg_trgm. Runs as logline_owner at every migration, after the others, and
-- does nothing if it was done. `logline.trigrams` says whether it made anything.
SELECT set_config('logline.trigrams', 'no', true);
DO $do$
DECLARE
  s text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_trgm');
BEGIN
  IF s IS NULL OR ledger.has_trigrams() THEN
    RETURN;
  END IF;
  PERFORM set_config('logline.trigrams', 'made', true);
  CREATE OR REPLACE FUNCTION ledger.has_trigrams() RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
  -- The scope is the same as that of `ledger.search_text`, from the same functions. It keeps no index: that of one tenant would be mixed
  -- with those of all. So it looks at the newest entries of the place alone, and is asked only if no entry has a word of the query.
  EXECUTE replace($sql$
    CREATE OR REPLACE FUNCTION ledger.search_similar(scope text, session text, named_owner text, words text[], at timestamptz,
      most integer, only_kinds text[], all_tags text[], only_tenants text[])
    RETURNS TABLE (tenant_id text, id uuid, seq integer, curr_hash text, score float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    DECLARE
      here text := ledger.searched_place(scope, session, named_owner);
      -- Short words are like too many others.
      long text[] := ARRAY(SELECT ledger.plain(left(w.word, 64)) FROM unnest(words[1:32]) AS w(word) WHERE length(w.word) >= 4);
    BEGIN
      IF here IS NULL OR cardinality(long) = 0 THEN
        RETURN;
      END IF;
      RETURN QUERY
        WITH newest AS MATERIALIZED (
          SELECT m.tenant_id, m.id, m.seq, m.curr_hash FROM ledger.memories m
          WHERE CASE WHEN scope = 'session' THEN m.session_place = here ELSE m.place = here END
            AND (m.ttl_at IS NULL OR m.ttl_at > at) AND ledger.is_searched(scope, m.tenant_id, m.owner_id, named_owner)
            AND (only_kinds IS NULL OR m.kind = ANY (only_kinds)) AND (all_tags IS NULL OR m.tags @> all_tags)
            AND (only_tenants IS NULL OR scope <> 'public' OR m.tenant_id = ANY (only_tenants))
          ORDER BY m.id DESC LIMIT 5000),
        texts AS MATERIALIZED (
          SELECT n.*, ledger.plain(left(u.content ->> 'text', 4096)) AS text FROM newest n
          JOIN ledger.universal_registry u ON u.tenant_id = n.tenant_id AND u.id = n.id AND u.seq = n.seq),
        alike AS (
          SELECT t.tenant_id, t.id, t.seq, t.curr_hash, sum(l.likeness) AS score, max(l.likeness) AS most_alike
          FROM texts t CROSS JOIN LATERAL (
            SELECT @.strict_word_similarity(w.word, t.text)::float8 AS likeness FROM unnest(long) AS w(word)) l
          GROUP BY t.tenant_id, t.id, t.seq, t.curr_hash)
        SELECT a.tenant_id, a.id, a.seq, a.curr_hash, a.score FROM alike a WHERE a.most_alike >= 0.5
        ORDER BY a.score DESC, a.id DESC, a.tenant_id LIMIT least(greatest(most, 0), 200);
    END $$ $sql$, '@.', s || '.');
END $do$;
