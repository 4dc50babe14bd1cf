-- Twin of ../sqlite/0001_init.sql: same tables, same columns, same names of
-- constraints and indexes. A unique index is called <table>_<columns>_key
-- (nothing is appended to a column that ends in _key already): SQLite reports
-- the columns only, and the name is derived from them.

CREATE TABLE users (
    id uuid CONSTRAINT users_pkey PRIMARY KEY,
    username text NOT NULL,
    -- The folded form, by which names are compared.
    username_key text NOT NULL,
    email text NOT NULL,
    email_key text NOT NULL,
    full_name text,
    password_hash text NOT NULL,
    -- A bit mask of roles.
    roles bigint NOT NULL,
    is_active boolean NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT users_username_check CHECK (username_key <> ''),
    CONSTRAINT users_email_check CHECK (email_key <> ''),
    CONSTRAINT users_roles_check CHECK (roles >= 0),
    CONSTRAINT users_version_check CHECK (version > 0)
);
CREATE UNIQUE INDEX users_username_key ON users (username_key);
CREATE UNIQUE INDEX users_email_key ON users (email_key);

CREATE TABLE login_sessions (
    id uuid CONSTRAINT login_sessions_pkey PRIMARY KEY,
    user_id uuid NOT NULL
        CONSTRAINT login_sessions_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    device text,
    address text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    version bigint NOT NULL,
    CONSTRAINT login_sessions_version_check CHECK (version > 0)
);
CREATE INDEX login_sessions_user_id_idx ON login_sessions (user_id, id);
CREATE INDEX login_sessions_expires_at_idx ON login_sessions (expires_at);
CREATE INDEX login_sessions_ended_at_idx ON login_sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE refresh_tokens (
    id uuid CONSTRAINT refresh_tokens_pkey PRIMARY KEY,
    session_id uuid NOT NULL
        CONSTRAINT refresh_tokens_session_id_fkey REFERENCES login_sessions (id) ON DELETE CASCADE,
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    spent_at timestamptz,
    -- No foreign key: a token may be spent before its successor is written.
    successor_id uuid,
    CONSTRAINT refresh_tokens_hash_check CHECK (length(hash) = 32),
    CONSTRAINT refresh_tokens_spent_check CHECK ((spent_at IS NULL) = (successor_id IS NULL))
);
CREATE UNIQUE INDEX refresh_tokens_hash_key ON refresh_tokens (hash);
CREATE INDEX refresh_tokens_session_id_idx ON refresh_tokens (session_id);

CREATE TABLE api_keys (
    id uuid CONSTRAINT api_keys_pkey PRIMARY KEY,
    user_id uuid NOT NULL
        CONSTRAINT api_keys_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    name text NOT NULL,
    -- The folded form, for the search.
    name_key text NOT NULL,
    prefix text NOT NULL,
    -- JSON as text on both engines: what was written is what is read.
    scopes text NOT NULL,
    upstreams text NOT NULL,
    allowed_ips text NOT NULL,
    allowed_origins text NOT NULL,
    rate_limit bigint,
    rate_limit_per_minute bigint,
    monthly_quota bigint,
    metadata text NOT NULL,
    is_active boolean NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL,
    rotated_at timestamptz,
    version bigint NOT NULL,
    CONSTRAINT api_keys_rate_limit_check CHECK (rate_limit >= 0),
    CONSTRAINT api_keys_rate_limit_per_minute_check CHECK (rate_limit_per_minute >= 0),
    CONSTRAINT api_keys_monthly_quota_check CHECK (monthly_quota >= 0),
    CONSTRAINT api_keys_version_check CHECK (version > 0)
);
CREATE INDEX api_keys_user_id_idx ON api_keys (user_id, id);

-- The texts that open a key: one, or for the grace period of a rotation several.
CREATE TABLE api_key_secrets (
    hash bytea CONSTRAINT api_key_secrets_pkey PRIMARY KEY,
    key_id uuid NOT NULL
        CONSTRAINT api_key_secrets_key_id_fkey REFERENCES api_keys (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    CONSTRAINT api_key_secrets_hash_check CHECK (length(hash) = 32)
);
CREATE INDEX api_key_secrets_key_id_idx ON api_key_secrets (key_id);
CREATE INDEX api_key_secrets_expires_at_idx ON api_key_secrets (expires_at)
    WHERE expires_at IS NOT NULL;

-- Usage refers to users and keys without foreign keys: what was used is billed
-- after they are gone. The nil uuid stands for none.
CREATE TABLE usage_hourly (
    hour timestamptz NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid NOT NULL,
    upstream text NOT NULL,
    status_class smallint NOT NULL,
    requests bigint NOT NULL,
    rejected bigint NOT NULL,
    aborted bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    duration_us bigint NOT NULL,
    CONSTRAINT usage_hourly_pkey PRIMARY KEY (hour, user_id, key_id, upstream, status_class),
    CONSTRAINT usage_hourly_sums_check CHECK (
        requests >= 0 AND rejected >= 0 AND aborted >= 0
        AND bytes_in >= 0 AND bytes_out >= 0 AND duration_us >= 0
    )
);
CREATE INDEX usage_hourly_user_id_idx ON usage_hourly (user_id, hour);
CREATE INDEX usage_hourly_key_id_idx ON usage_hourly (key_id, hour);

CREATE TABLE usage_latency (
    hour timestamptz NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid NOT NULL,
    upstream text NOT NULL,
    status_class smallint NOT NULL,
    bucket smallint NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT usage_latency_pkey
        PRIMARY KEY (hour, user_id, key_id, upstream, status_class, bucket),
    CONSTRAINT usage_latency_count_check CHECK (count >= 0)
);
CREATE INDEX usage_latency_user_id_idx ON usage_latency (user_id, hour);
CREATE INDEX usage_latency_key_id_idx ON usage_latency (key_id, hour);

CREATE TABLE usage_requests (
    id uuid CONSTRAINT usage_requests_pkey PRIMARY KEY,
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
    upstream text NOT NULL,
    CONSTRAINT usage_requests_status_check CHECK (status BETWEEN 0 AND 65535),
    CONSTRAINT usage_requests_outcome_check
        CHECK (outcome IN ('completed', 'aborted', 'failed', 'rejected'))
);
CREATE INDEX usage_requests_user_id_idx ON usage_requests (user_id, id);
CREATE INDEX usage_requests_key_id_idx ON usage_requests (key_id, id);
CREATE INDEX usage_requests_at_idx ON usage_requests (at);

-- Values that all instances share and that one of them makes once.
CREATE TABLE settings (
    name text CONSTRAINT settings_pkey PRIMARY KEY,
    value text NOT NULL,
    created_at timestamptz NOT NULL
);
