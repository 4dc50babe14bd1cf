-- Twin of ../postgres/0011_audit.sql (see there); see 0001_init.sql for the types.
CREATE TABLE audit_log (
    seq integer NOT NULL CONSTRAINT audit_log_pkey PRIMARY KEY,
    at text NOT NULL,
    actor_kind text NOT NULL,
    actor_id blob,
    actor_name text NOT NULL,
    address text,
    user_agent text,
    request_id text,
    action text NOT NULL,
    target_kind text NOT NULL,
    target_id text,
    before_state text,
    after_state text,
    previous_hash blob NOT NULL,
    hash blob NOT NULL,
    key_id text NOT NULL,
    seal blob NOT NULL,
    CONSTRAINT audit_log_seq_check CHECK (seq >= 1),
    CONSTRAINT audit_log_actor_kind_check CHECK (actor_kind IN ('user', 'command', 'system')),
    CONSTRAINT audit_log_hash_check CHECK (
        length(previous_hash) = 32 AND length(hash) = 32 AND length(seal) = 32
    )
) STRICT;
CREATE INDEX audit_log_at_idx ON audit_log (at);
CREATE INDEX audit_log_actor_id_idx ON audit_log (actor_id, seq);
CREATE INDEX audit_log_actor_name_idx ON audit_log (actor_name, seq);
CREATE INDEX audit_log_action_idx ON audit_log (action, seq);
CREATE INDEX audit_log_target_id_idx ON audit_log (target_id, seq);

CREATE TABLE audit_head (
    id integer NOT NULL CONSTRAINT audit_head_pkey PRIMARY KEY,
    seq integer NOT NULL,
    hash blob NOT NULL,
    key_id text NOT NULL,
    seal blob NOT NULL,
    dropped_seq integer NOT NULL,
    dropped_hash blob NOT NULL,
    dropped_key_id text NOT NULL,
    dropped_seal blob NOT NULL,
    CONSTRAINT audit_head_id_check CHECK (id = 1),
    CONSTRAINT audit_head_seq_check CHECK (seq >= dropped_seq AND dropped_seq >= 0)
) STRICT;
INSERT INTO audit_head VALUES (1, 0, zeroblob(32), '', x'', 0, zeroblob(32), '', x'');

CREATE TRIGGER audit_log_not_updated BEFORE UPDATE ON audit_log
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_not_deleted BEFORE DELETE ON audit_log
    WHEN OLD.seq > (SELECT dropped_seq FROM audit_head)
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
-- Before the conflict is seen that INSERT OR REPLACE would settle by a deletion
-- that no trigger hears of.
CREATE TRIGGER audit_log_not_replaced BEFORE INSERT ON audit_log
    WHEN EXISTS (SELECT 1 FROM audit_log WHERE seq = NEW.seq)
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_head_not_moved_back BEFORE UPDATE ON audit_head
    WHEN NEW.seq < OLD.seq OR NEW.dropped_seq < OLD.dropped_seq
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_head_not_deleted BEFORE DELETE ON audit_head
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
