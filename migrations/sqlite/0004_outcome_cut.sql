-- A stream that we end before its end is recorded as such. SQLite cannot change
-- a check, so the table is made anew.
CREATE TABLE usage_requests_new (
    id blob NOT NULL CONSTRAINT usage_requests_pkey PRIMARY KEY,
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
    upstream text NOT NULL,
    CONSTRAINT usage_requests_status_check CHECK (status BETWEEN 0 AND 65535),
    CONSTRAINT usage_requests_outcome_check
        CHECK (outcome IN ('completed', 'aborted', 'failed', 'cut', 'rejected'))
) STRICT;
INSERT INTO usage_requests_new (id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, upstream)
    SELECT id, request_id, at, method, path, status, outcome, duration_us,
        bytes_in, bytes_out, user_id, key_id, upstream
    FROM usage_requests;
DROP TABLE usage_requests;
ALTER TABLE usage_requests_new RENAME TO usage_requests;
CREATE INDEX usage_requests_user_id_idx ON usage_requests (user_id, id);
CREATE INDEX usage_requests_key_id_idx ON usage_requests (key_id, id);
CREATE INDEX usage_requests_at_idx ON usage_requests (at);
