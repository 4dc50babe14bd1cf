-- Twin of ../postgres/0009_usage_rollups.sql (see there); see 0001_init.sql for the types.

DROP INDEX usage_hourly_user_id_idx;
DROP INDEX usage_hourly_key_id_idx;
ALTER TABLE usage_hourly RENAME TO usage_hourly_old;
DROP INDEX usage_requests_user_id_idx;
DROP INDEX usage_requests_key_id_idx;
DROP INDEX usage_requests_at_idx;
ALTER TABLE usage_requests RENAME TO usage_requests_old;

-- Sums of usage per hour, day and month, each row with its latencies: a JSON
-- object from the number of a bucket to how many requests fell into it.
--
-- The same usage is summed in several details, so that a question reads no more
-- rows than its answer needs: 0 tells everything apart, 1 who asked (upstream
-- and route are empty), 2 what was asked for (nobody's ids). Detail 0 has no
-- months. The nil uuid stands for none; no foreign keys, as before.
CREATE TABLE usage_hourly (
    detail integer NOT NULL,
    start text NOT NULL,
    user_id blob NOT NULL,
    key_id blob NOT NULL,
    pass_id blob NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class integer NOT NULL,
    requests integer NOT NULL,
    rejected integer NOT NULL,
    aborted integer NOT NULL,
    bytes_in integer NOT NULL,
    bytes_out integer NOT NULL,
    duration_us integer NOT NULL,
    stream_us integer NOT NULL,
    messages integer NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_hourly_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_hourly_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_hourly_user_id_idx ON usage_hourly (user_id, detail, start);
CREATE INDEX usage_hourly_key_id_idx ON usage_hourly (key_id, detail, start);

CREATE TABLE usage_daily (
    detail integer NOT NULL,
    start text NOT NULL,
    user_id blob NOT NULL,
    key_id blob NOT NULL,
    pass_id blob NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class integer NOT NULL,
    requests integer NOT NULL,
    rejected integer NOT NULL,
    aborted integer NOT NULL,
    bytes_in integer NOT NULL,
    bytes_out integer NOT NULL,
    duration_us integer NOT NULL,
    stream_us integer NOT NULL,
    messages integer NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_daily_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_daily_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_daily_user_id_idx ON usage_daily (user_id, detail, start);
CREATE INDEX usage_daily_key_id_idx ON usage_daily (key_id, detail, start);

CREATE TABLE usage_monthly (
    detail integer NOT NULL,
    start text NOT NULL,
    user_id blob NOT NULL,
    key_id blob NOT NULL,
    pass_id blob NOT NULL,
    upstream text NOT NULL,
    route text NOT NULL,
    status_class integer NOT NULL,
    requests integer NOT NULL,
    rejected integer NOT NULL,
    aborted integer NOT NULL,
    bytes_in integer NOT NULL,
    bytes_out integer NOT NULL,
    duration_us integer NOT NULL,
    stream_us integer NOT NULL,
    messages integer NOT NULL,
    latency text NOT NULL,
    CONSTRAINT usage_monthly_pkey PRIMARY KEY
        (detail, start, user_id, key_id, pass_id, upstream, route, status_class),
    CONSTRAINT usage_monthly_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0 AND bytes_in >= 0
        AND bytes_out >= 0 AND duration_us >= 0 AND stream_us >= 0 AND messages >= 0
    )
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_monthly_user_id_idx ON usage_monthly (user_id, detail, start);
CREATE INDEX usage_monthly_key_id_idx ON usage_monthly (key_id, detail, start);

-- The request log in the order of completion, which is what `place` sorts by.
-- Up to now it was the order of arrival, by id.
CREATE TABLE usage_requests (
    place blob NOT NULL CONSTRAINT usage_requests_pkey PRIMARY KEY,
    id blob NOT NULL,
    request_id text NOT NULL,
    at text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    status integer NOT NULL,
    outcome text NOT NULL,
    duration_us integer NOT NULL,
    bytes_in integer NOT NULL,
    bytes_out integer NOT NULL,
    user_id blob,
    key_id blob,
    pass_id blob,
    upstream text NOT NULL,
    route text NOT NULL,
    is_stream integer NOT NULL,
    messages integer NOT NULL,
    CONSTRAINT usage_requests_status_check CHECK (status BETWEEN 0 AND 65535),
    CONSTRAINT usage_requests_outcome_check
        CHECK (outcome IN ('completed', 'aborted', 'failed', 'cut', 'rejected'))
) STRICT;
CREATE INDEX usage_requests_user_id_idx ON usage_requests (user_id, place);
CREATE INDEX usage_requests_key_id_idx ON usage_requests (key_id, place);

INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 0, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '/**',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT hour AS start, user_id AS user_id, key_id AS key_id, upstream AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT hour AS start, user_id AS user_id, key_id AS key_id, upstream AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 1, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT hour AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT hour AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 2, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '/**',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT hour AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT hour AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_daily (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 0, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '/**',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, upstream AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, upstream AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_daily (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 1, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_daily (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 2, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '/**',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT substr(hour, 1, 10) || 'T00:00:00+00:00' AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_monthly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 1, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT substr(hour, 1, 7) || '-01T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT substr(hour, 1, 7) || '-01T00:00:00+00:00' AS start, user_id AS user_id, key_id AS key_id, '' AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_monthly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 2, sums.start, sums.user_id, sums.key_id, x'00000000000000000000000000000000', sums.upstream, '/**',
        sums.status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE(latency, '{}')
    FROM (
        SELECT substr(hour, 1, 7) || '-01T00:00:00+00:00' AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class,
            SUM(requests) AS requests,
            SUM(rejected) AS rejected,
            SUM(aborted) AS aborted,
            SUM(bytes_in) AS bytes_in,
            SUM(bytes_out) AS bytes_out,
            SUM(duration_us) AS duration_us
        FROM usage_hourly_old GROUP BY 1, 2, 3, 4, 5
    ) AS sums
    LEFT JOIN (
        SELECT start, user_id, key_id, upstream, status_class, json_group_object(bucket, count) AS latency
        FROM (
            SELECT substr(hour, 1, 7) || '-01T00:00:00+00:00' AS start, x'00000000000000000000000000000000' AS user_id, x'00000000000000000000000000000000' AS key_id, upstream AS upstream, status_class, bucket, SUM(count) AS count
            FROM usage_latency GROUP BY 1, 2, 3, 4, 5, 6
        ) AS buckets GROUP BY 1, 2, 3, 4, 5
    ) AS latencies
        ON latencies.start = sums.start AND latencies.user_id = sums.user_id
        AND latencies.key_id = sums.key_id AND latencies.upstream = sums.upstream
        AND latencies.status_class = sums.status_class;
INSERT INTO usage_requests (place, id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, pass_id,
        upstream, route, is_stream, messages)
    SELECT id, id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, NULL,
        upstream, '/**', 0, 0
    FROM usage_requests_old;
DROP TABLE usage_hourly_old;
DROP TABLE usage_latency;
DROP TABLE usage_requests_old;
DROP TABLE usage_passes;
