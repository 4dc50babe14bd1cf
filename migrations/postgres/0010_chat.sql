-- Conversations of visitors without an account, relayed to a workflow.

CREATE TABLE chat_sessions (
    id uuid NOT NULL,
    -- SHA-256 of what the cookie holds; the one before it is good for a moment
    -- after a renewal.
    hash bytea NOT NULL,
    previous_hash bytea,
    previous_until timestamptz,
    -- As the browser names it, and its host.
    origin text NOT NULL,
    origin_domain text NOT NULL,
    page_url text,
    -- Keyed digests of the browser and of its network.
    browser bytea NOT NULL,
    network bytea NOT NULL,
    user_id uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    -- Messages so far, of both sides; also what new ones wait in line for.
    messages bigint NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT chat_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT chat_sessions_hash_key UNIQUE (hash),
    CONSTRAINT chat_sessions_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT chat_sessions_messages_check CHECK (messages >= 0)
);
CREATE INDEX chat_sessions_previous_hash_idx ON chat_sessions (previous_hash)
    WHERE previous_hash IS NOT NULL;
CREATE INDEX chat_sessions_expires_at_idx ON chat_sessions (expires_at);
CREATE INDEX chat_sessions_user_id_idx ON chat_sessions (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE chat_messages (
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    -- Within its session, from 1.
    position bigint NOT NULL,
    role text NOT NULL,
    status text NOT NULL,
    -- What its sender calls it, so that sending it again is no second message.
    client_id text,
    content text NOT NULL,
    page_url text,
    failure text,
    -- Of an answer under way: who writes it, and until when that is believed.
    writer uuid,
    lease_until timestamptz,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT chat_messages_pkey PRIMARY KEY (id),
    CONSTRAINT chat_messages_session_id_position_key UNIQUE (session_id, position),
    CONSTRAINT chat_messages_session_id_client_id_key UNIQUE (session_id, client_id),
    CONSTRAINT chat_messages_session_id_fkey FOREIGN KEY (session_id)
        REFERENCES chat_sessions (id) ON DELETE CASCADE,
    CONSTRAINT chat_messages_role_check CHECK (role IN ('user', 'assistant')),
    CONSTRAINT chat_messages_status_check CHECK (status IN ('streaming', 'complete', 'failed')),
    CONSTRAINT chat_messages_lease_check
        CHECK (status <> 'streaming' OR writer IS NOT NULL AND lease_until IS NOT NULL)
);
CREATE INDEX chat_messages_lease_until_idx ON chat_messages (lease_until)
    WHERE status = 'streaming';

-- What has come of an answer that is under way. A piece is numbered by the
-- bytes of the answer up to its end; it goes when the answer is whole.
CREATE TABLE chat_events (
    message_id uuid NOT NULL,
    number bigint NOT NULL,
    content text NOT NULL,
    CONSTRAINT chat_events_pkey PRIMARY KEY (message_id, number),
    CONSTRAINT chat_events_message_id_fkey FOREIGN KEY (message_id)
        REFERENCES chat_messages (id) ON DELETE CASCADE
);
