-- Twin of ../postgres/0014_audit_kept.sql (see there); triggers of SQLite look at
-- tables of their own schema as it is.
CREATE TRIGGER audit_head_not_dropped BEFORE UPDATE ON audit_head
    WHEN NEW.dropped_seq > OLD.dropped_seq AND (
        NEW.dropped_seq >= NEW.seq OR NOT EXISTS (
            SELECT 1 FROM audit_log WHERE seq = NEW.dropped_seq AND hash = NEW.dropped_hash
        )
    )
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_head_not_replaced BEFORE INSERT ON audit_head
    WHEN EXISTS (SELECT 1 FROM audit_head WHERE id = NEW.id)
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
