-- Who did what. A row's hash covers the row and the hash of the row before it;
-- its seal is made of the hash with a key that is not in the database.
CREATE TABLE audit_log (
    -- Without gaps: given by whoever holds the row of audit_head.
    seq bigint NOT NULL CONSTRAINT audit_log_pkey PRIMARY KEY,
    at timestamptz NOT NULL,
    actor_kind text NOT NULL,
    -- No foreign key: what somebody did stays when their account goes.
    actor_id uuid,
    actor_name text NOT NULL,
    address text,
    user_agent text,
    request_id text,
    action text NOT NULL,
    target_kind text NOT NULL,
    target_id text,
    -- JSON as text: the hash is of its bytes.
    before_state text,
    after_state text,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    key_id text NOT NULL,
    seal bytea NOT NULL,
    CONSTRAINT audit_log_seq_check CHECK (seq >= 1),
    CONSTRAINT audit_log_actor_kind_check CHECK (actor_kind IN ('user', 'command', 'system')),
    CONSTRAINT audit_log_hash_check CHECK (
        octet_length(previous_hash) = 32 AND octet_length(hash) = 32 AND octet_length(seal) = 32
    )
);
CREATE INDEX audit_log_at_idx ON audit_log (at);
CREATE INDEX audit_log_actor_id_idx ON audit_log (actor_id, seq);
CREATE INDEX audit_log_actor_name_idx ON audit_log (actor_name, seq);
CREATE INDEX audit_log_action_idx ON audit_log (action, seq);
CREATE INDEX audit_log_target_id_idx ON audit_log (target_id, seq);

-- The two ends of the chain: its last row, and the last row that was dropped
-- when its time was over. One row, which every append locks.
CREATE TABLE audit_head (
    id bigint NOT NULL CONSTRAINT audit_head_pkey PRIMARY KEY,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    -- Empty while nothing was appended, or dropped.
    key_id text NOT NULL,
    seal bytea NOT NULL,
    dropped_seq bigint NOT NULL,
    dropped_hash bytea NOT NULL,
    dropped_key_id text NOT NULL,
    dropped_seal bytea NOT NULL,
    CONSTRAINT audit_head_id_check CHECK (id = 1),
    CONSTRAINT audit_head_seq_check CHECK (seq >= dropped_seq AND dropped_seq >= 0)
);
INSERT INTO audit_head VALUES
    (1, 0, decode(repeat('00', 32), 'hex'), '', '', 0, decode(repeat('00', 32), 'hex'), '', '');

-- Against mistakes, and against whoever may only write: no row changes, and only
-- those go that audit_head says were dropped.
CREATE FUNCTION audit_log_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.seq <= (SELECT dropped_seq FROM audit_head) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_keep();
CREATE TRIGGER audit_log_not_emptied BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_keep();

-- The ends only move forward, and nobody takes them away.
CREATE FUNCTION audit_head_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.seq >= OLD.seq AND NEW.dropped_seq >= OLD.dropped_seq THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_head_kept BEFORE UPDATE OR DELETE ON audit_head
    FOR EACH ROW EXECUTE FUNCTION audit_head_keep();
