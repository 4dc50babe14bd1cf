-- Twin of ../sqlite/0009_usage_rollups.sql; see 0001_init.sql for the naming.

DROP INDEX usage_hourly_user_id_idx;
DROP INDEX usage_hourly_key_id_idx;
ALTER TABLE usage_hourly DROP CONSTRAINT usage_hourly_pkey;
ALTER TABLE usage_hourly RENAME TO usage_hourly_old;
DROP INDEX usage_requests_user_id_idx;
DROP INDEX usage_requests_key_id_idx;
DROP INDEX usage_requests_at_idx;
ALTER TABLE usage_requests DROP CONSTRAINT usage_requests_pkey;
ALTER TABLE usage_requests RENAME TO usage_requests_old;

-- Sums of usage per hour, day and month, each row with its latencies: the number
-- of a bucket and how many requests fell into it, `"30":5,"31":2`. A bucket may be
-- there more than once; what was told of it adds up.
--
-- The same usage is summed in several details, so that a question reads no more
-- rows than its answer needs: 0 tells everything apart, 1 who asked (upstream
-- and route are empty), 2 what was asked for (nobody's ids), 4 neither. Detail 0
-- has no months. The nil uuid stands for none; no foreign keys, as before.
--
-- Hours in detail 0 are always of everything. All other rows are made of them,
-- for the hours before `usage_rolled_up.until`.
CREATE TABLE usage_hourly (
    detail smallint NOT NULL,
    start timestamptz NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid NOT NULL,
    pass_id uuid NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class smallint NOT NULL,
    requests bigint NOT NULL,
    rejected bigint NOT NULL,
    aborted bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    duration_us bigint NOT NULL,
    stream_us bigint NOT NULL,
    messages bigint NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_hourly_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_hourly_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
) PARTITION BY RANGE (start);
CREATE INDEX usage_hourly_user_id_idx ON usage_hourly (user_id, detail, start);
CREATE INDEX usage_hourly_key_id_idx ON usage_hourly (key_id, detail, start);

CREATE INDEX usage_hourly_pass_id_idx ON usage_hourly (pass_id, start)
    WHERE pass_id <> '00000000-0000-0000-0000-000000000000'::uuid;

CREATE TABLE usage_daily (
    detail smallint NOT NULL,
    start timestamptz NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid NOT NULL,
    pass_id uuid NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class smallint NOT NULL,
    requests bigint NOT NULL,
    rejected bigint NOT NULL,
    aborted bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    duration_us bigint NOT NULL,
    stream_us bigint NOT NULL,
    messages bigint NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_daily_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_daily_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
);
CREATE INDEX usage_daily_user_id_idx ON usage_daily (user_id, detail, start);
CREATE INDEX usage_daily_key_id_idx ON usage_daily (key_id, detail, start);

CREATE TABLE usage_monthly (
    detail smallint NOT NULL,
    start timestamptz NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid NOT NULL,
    pass_id uuid NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class smallint NOT NULL,
    requests bigint NOT NULL,
    rejected bigint NOT NULL,
    aborted bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    duration_us bigint NOT NULL,
    stream_us bigint NOT NULL,
    messages bigint NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_monthly_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_monthly_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
);
CREATE INDEX usage_monthly_user_id_idx ON usage_monthly (user_id, detail, start);
CREATE INDEX usage_monthly_key_id_idx ON usage_monthly (key_id, detail, start);

CREATE TABLE usage_rolled_up (
    id smallint NOT NULL CONSTRAINT usage_rolled_up_pkey PRIMARY KEY,
    until timestamptz NOT NULL,
    CONSTRAINT usage_rolled_up_id_check CHECK (id = 1)
);
INSERT INTO usage_rolled_up VALUES (1, '1970-01-01 00:00:00+00');

-- The request log in the order of completion, which is what `place` sorts by.
-- Up to now it was the order of arrival, by id.
CREATE TABLE usage_requests (
    place uuid CONSTRAINT usage_requests_pkey PRIMARY KEY,
    id uuid NOT NULL,
    request_id text NOT NULL,
    at timestamptz NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    status integer NOT NULL,
    outcome text NOT NULL,
    duration_us bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    user_id uuid,
    key_id uuid,
    pass_id uuid,
    upstream text NOT NULL,
    route text NOT NULL,
    is_stream boolean NOT NULL,
    messages bigint NOT NULL,
    CONSTRAINT usage_requests_status_check CHECK (status BETWEEN 0 AND 65535),
    CONSTRAINT usage_requests_outcome_check
        CHECK (outcome IN ('completed', 'aborted', 'failed', 'cut', 'rejected'))
) PARTITION BY RANGE (place);
CREATE INDEX usage_requests_user_id_idx ON usage_requests (user_id, place);
CREATE INDEX usage_requests_key_id_idx ON usage_requests (key_id, place);

-- Latencies with each bucket once.
CREATE FUNCTION usage_merge(latency text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT COALESCE(string_agg('"' || bucket || '":' || count, ','), '') FROM (
        SELECT key AS bucket, SUM(value::bigint) AS count
        FROM json_each_text(('{' || latency || '}')::json) GROUP BY key
    ) AS merged
$$;

-- Before all places in the log of that time (UTC) and later.
CREATE FUNCTION usage_first_place(at timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((EXTRACT(EPOCH FROM at) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid
$$;

-- Partitions are of one month of UTC. One that is there is left alone; one
-- after the other, however many instances ask. It is filled in later (ATTACH),
-- since that way nobody who reads or writes has to wait.
CREATE FUNCTION usage_add_month(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
    next timestamp := first + interval '1 month';
    hourly text := 'usage_hourly_' || to_char(first, 'YYYYMM');
    requests text := 'usage_requests_' || to_char(first, 'YYYYMM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tollgate.usage_months', 0));
    IF to_regclass(hourly) IS NULL THEN
        EXECUTE format('create table %I (LIKE usage_hourly INCLUDING ALL)', hourly);
        EXECUTE format('alter table usage_hourly attach partition %I for values from (%L) to (%L)',
            hourly, first AT TIME ZONE 'UTC', next AT TIME ZONE 'UTC');
    END IF;
    IF to_regclass(requests) IS NULL THEN
        EXECUTE format('create table %I (LIKE usage_requests INCLUDING ALL)', requests);
        EXECUTE format('alter table usage_requests attach partition %I for values from (%L) to (%L)',
            requests, usage_first_place(first), usage_first_place(next));
    END IF;
END $$;

-- Drops the partitions of all months that had ended by then; how many.
CREATE FUNCTION usage_drop_months(before timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    ends text := to_char(date_trunc('month', before AT TIME ZONE 'UTC'), 'YYYYMM');
    partition regclass;
    dropped bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tollgate.usage_months', 0));
    FOR partition IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent IN ('usage_hourly'::regclass, 'usage_requests'::regclass)
            AND right(relname, 6) < ends
        ORDER BY relname
    LOOP
        EXECUTE format('drop table %s', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- A month that a row is in, or would be: this one and the next are made here, so
-- that the process that migrates can write at once.
DO $$
DECLARE
    month timestamptz;
BEGIN
    FOR month IN
        SELECT date_trunc('month', hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM usage_hourly_old
        UNION
        SELECT date_trunc('month', hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM usage_passes
        UNION
        SELECT date_trunc('month', to_timestamp(
            ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000) AT TIME ZONE 'UTC')
            AT TIME ZONE 'UTC'
        FROM usage_requests_old
        UNION SELECT now()
        UNION SELECT now() + interval '1 month'
    LOOP
        PERFORM usage_add_month(month);
    END LOOP;
END $$;

-- The other details, days and months are made of these by the first processes
-- that run.
INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 0, hour, user_id, key_id, '00000000-0000-0000-0000-000000000000'::uuid, upstream, '/**',
        status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE((
            SELECT string_agg('"' || bucket || '":' || count, ',') FROM usage_latency
            WHERE usage_latency.hour = sums.hour AND usage_latency.user_id = sums.user_id
                AND usage_latency.key_id = sums.key_id
                AND usage_latency.upstream = sums.upstream
                AND usage_latency.status_class = sums.status_class
        ), '')
    FROM usage_hourly_old AS sums;
-- What passes had used is part of the rows above, which do not tell whose it is.
-- Quotas count it from here; reports do not read this detail.
INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 3, hour, '00000000-0000-0000-0000-000000000000'::uuid, '00000000-0000-0000-0000-000000000000'::uuid, pass_id, '', '', 0, requests, 0, 0, 0, 0, 0, 0, 0, ''
    FROM usage_passes;
INSERT INTO usage_requests (place, id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, pass_id,
        upstream, route, is_stream, messages)
    SELECT id, id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, NULL,
        upstream, '/**', FALSE, 0
    FROM usage_requests_old;
DROP TABLE usage_hourly_old;
DROP TABLE usage_latency;
DROP TABLE usage_requests_old;
DROP TABLE usage_passes;
