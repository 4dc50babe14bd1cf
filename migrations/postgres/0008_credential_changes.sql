-- What changed of credentials, for every instance to hear of: older copies are not
-- used again. Triggers write it, so that no change can be forgotten, whoever makes it.
CREATE TABLE credential_changes (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT credential_changes_pkey PRIMARY KEY,
    -- The number of the transaction that wrote it. Ids are given before the commit,
    -- so a lower one may still appear; below the oldest transaction that runs
    -- nothing does.
    position bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    kind text NOT NULL,
    -- The id of an account or a login session, the digest of a key's or pass's text.
    subject bytea NOT NULL,
    version bigint NOT NULL,
    -- Microseconds since 1970 by the database's clock.
    changed_us bigint NOT NULL
        DEFAULT (CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))
);
CREATE INDEX credential_changes_position_idx ON credential_changes (position);
CREATE INDEX credential_changes_changed_us_idx ON credential_changes (changed_us);

CREATE FUNCTION note_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('account', uuid_send(OLD.id), OLD.version + 1);
    ELSE
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('account', uuid_send(NEW.id), NEW.version);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER users_changed AFTER UPDATE OF version ON users
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION note_account_change();
CREATE TRIGGER users_deleted AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION note_account_change();

CREATE FUNCTION note_session_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('session', uuid_send(OLD.id), OLD.version + 1);
    ELSE
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('session', uuid_send(NEW.id), NEW.version);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER login_sessions_changed AFTER UPDATE OF version ON login_sessions
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION note_session_change();
CREATE TRIGGER login_sessions_deleted AFTER DELETE ON login_sessions
    FOR EACH ROW EXECUTE FUNCTION note_session_change();

CREATE FUNCTION note_pass_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('pass', OLD.hash, OLD.version + 1);
    ELSE
        INSERT INTO credential_changes (kind, subject, version)
        VALUES ('pass', NEW.hash, NEW.version);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER passes_changed AFTER UPDATE OF version ON passes
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION note_pass_change();
CREATE TRIGGER passes_deleted AFTER DELETE ON passes
    FOR EACH ROW EXECUTE FUNCTION note_pass_change();

-- A key is cached by each of its texts. A text that is removed never comes back:
-- nothing is newer than its end.
CREATE FUNCTION note_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    SELECT 'key', hash, NEW.version FROM api_key_secrets WHERE key_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER api_keys_changed AFTER UPDATE OF version ON api_keys
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION note_key_change();
CREATE FUNCTION note_key_text_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('key', OLD.hash, 9223372036854775807);
    RETURN NULL;
END $$;
CREATE TRIGGER api_key_secrets_deleted AFTER DELETE ON api_key_secrets
    FOR EACH ROW EXECUTE FUNCTION note_key_text_removed();

-- A hint to look at once. One per transaction, whatever it changed.
CREATE FUNCTION announce_credential_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollgate_credentials', '');
    RETURN NULL;
END $$;
CREATE TRIGGER credential_changes_announced AFTER INSERT ON credential_changes
    FOR EACH STATEMENT EXECUTE FUNCTION announce_credential_changes();
