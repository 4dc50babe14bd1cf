-- Twin of ../postgres/0003_stream_tickets.sql; see 0001_init.sql for the naming.

-- What opens one WebSocket for somebody whose program can send no header field
-- with it. Taken by being deleted.
CREATE TABLE stream_tickets (
    hash blob NOT NULL CONSTRAINT stream_tickets_pkey PRIMARY KEY,
    user_id blob NOT NULL
        CONSTRAINT stream_tickets_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    credential_kind text NOT NULL,
    -- What it was asked for with: the id of a login session, or the digest of a
    -- key's or a pass's text. No foreign key: it is proven again when it is used.
    credential blob NOT NULL,
    path text NOT NULL,
    expires_at text NOT NULL,
    CONSTRAINT stream_tickets_hash_check CHECK (length(hash) = 32),
    CONSTRAINT stream_tickets_credential_kind_check
        CHECK (credential_kind IN ('login', 'key', 'pass')),
    CONSTRAINT stream_tickets_credential_check
        CHECK (length(credential) = CASE credential_kind WHEN 'login' THEN 16 ELSE 32 END)
) STRICT;
CREATE INDEX stream_tickets_credential_idx ON stream_tickets (credential, expires_at);
CREATE INDEX stream_tickets_expires_at_idx ON stream_tickets (expires_at);
