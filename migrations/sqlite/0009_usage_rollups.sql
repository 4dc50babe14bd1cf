-- Twin of ../postgres/0009_usage_rollups.sql (see there); see 0001_init.sql for the types.

DROP INDEX usage_hourly_user_id_idx;
DROP INDEX usage_hourly_key_id_idx;
ALTER TABLE usage_hourly RENAME TO usage_hourly_old;
DROP INDEX usage_requests_user_id_idx;
DROP INDEX usage_requests_key_id_idx;
DROP INDEX usage_requests_at_idx;
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

CREATE INDEX usage_hourly_pass_id_idx ON usage_hourly (pass_id, start)
    WHERE pass_id <> x'00000000000000000000000000000000';

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

CREATE TABLE usage_rolled_up (
    id integer NOT NULL CONSTRAINT usage_rolled_up_pkey PRIMARY KEY,
    until text NOT NULL,
    CONSTRAINT usage_rolled_up_id_check CHECK (id = 1)
) STRICT;
INSERT INTO usage_rolled_up VALUES (1, '1970-01-01T00:00:00+00:00');

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

-- The other details, days and months are made of these by the first processes
-- that run.
INSERT INTO usage_hourly (detail, start, user_id, key_id, pass_id, upstream, route, status_class,
        requests, rejected, aborted, bytes_in, bytes_out, duration_us, stream_us, messages, latency)
    SELECT 0, hour, user_id, key_id, x'00000000000000000000000000000000', upstream, '/**',
        status_class, requests, rejected, aborted, bytes_in, bytes_out, duration_us, 0, 0,
        COALESCE((
            SELECT group_concat('"' || bucket || '":' || count, ',') FROM usage_latency
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
    SELECT 3, hour, x'00000000000000000000000000000000', x'00000000000000000000000000000000', pass_id, '', '', 0, requests, 0, 0, 0, 0, 0, 0, 0, ''
    FROM usage_passes;
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
