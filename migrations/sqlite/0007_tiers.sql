-- Twin of ../postgres/0007_tiers.sql; see 0001_init.sql for the naming.

ALTER TABLE api_keys ADD COLUMN limits text NOT NULL DEFAULT '[]';
ALTER TABLE api_keys ADD COLUMN max_concurrent integer
    CONSTRAINT api_keys_max_concurrent_check CHECK (max_concurrent >= 0);

CREATE TABLE usage_passes (
    pass_id blob NOT NULL,
    hour text NOT NULL,
    requests integer NOT NULL,
    CONSTRAINT usage_passes_pkey PRIMARY KEY (pass_id, hour),
    CONSTRAINT usage_passes_requests_check CHECK (requests >= 0)
) STRICT;
CREATE INDEX usage_passes_hour_idx ON usage_passes (hour);
