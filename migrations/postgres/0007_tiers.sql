-- Several named limits per key, requests at once, and the usage of passes, from
-- which quotas that begin with a pass are counted again when a counter is lost.

ALTER TABLE api_keys ADD COLUMN limits text NOT NULL DEFAULT '[]';
ALTER TABLE api_keys ADD COLUMN max_concurrent bigint
    CONSTRAINT api_keys_max_concurrent_check CHECK (max_concurrent >= 0);

CREATE TABLE usage_passes (
    pass_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    requests bigint NOT NULL,
    CONSTRAINT usage_passes_pkey PRIMARY KEY (pass_id, hour),
    CONSTRAINT usage_passes_requests_check CHECK (requests >= 0)
);
CREATE INDEX usage_passes_hour_idx ON usage_passes (hour);
