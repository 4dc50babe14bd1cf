-- The triggers of the audit log look into its own schema only: whoever may make
-- temporary tables could put another audit_head before it.
CREATE OR REPLACE FUNCTION audit_log_keep() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        EXECUTE format('SELECT dropped_seq FROM %I.audit_head WHERE id = 1', TG_TABLE_SCHEMA)
            INTO dropped;
        IF OLD.seq <= dropped THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Rows are marked as dropped by the hash of the last of them, and never all: one
-- that is younger tells of it.
CREATE OR REPLACE FUNCTION audit_head_keep() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_row boolean := true;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.dropped_seq > OLD.dropped_seq THEN
        EXECUTE format(
            'SELECT EXISTS (SELECT 1 FROM %I.audit_log WHERE seq = $1 AND hash = $2)',
            TG_TABLE_SCHEMA
        ) INTO is_row USING NEW.dropped_seq, NEW.dropped_hash;
        is_row := is_row AND NEW.dropped_seq < NEW.seq;
    END IF;
    IF TG_OP = 'UPDATE' AND is_row AND NEW.seq >= OLD.seq AND NEW.dropped_seq >= OLD.dropped_seq
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_head_not_emptied BEFORE TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION audit_head_keep();
