-- Instances hear of chat sessions as of credentials (0008_credential_changes.sql).
-- Whoever deletes a live one ends it first, so a change of the version is all there
-- is to hear of.
CREATE FUNCTION note_chat_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    SELECT DISTINCT 'chat', hash, NEW.version
    FROM (VALUES (NEW.hash), (NEW.previous_hash), (OLD.previous_hash)) AS known (hash)
    WHERE hash IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER chat_sessions_changed AFTER UPDATE OF version ON chat_sessions
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION note_chat_change();

-- What somebody said goes with their account: at once it cannot be seen any more,
-- and it is deleted soon. The account's row is locked by then, so no session can be
-- begun meanwhile.
CREATE FUNCTION condemn_chats() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chat_sessions
    SET ended_at = coalesce(ended_at, clock_timestamp()), expires_at = 'epoch',
        version = version + 1
    WHERE user_id = OLD.id AND expires_at > 'epoch';
    RETURN OLD;
END $$;
CREATE TRIGGER users_chats_condemned BEFORE DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION condemn_chats();

-- For operators who look for the sessions of one site, newest first.
CREATE INDEX chat_sessions_origin_domain_idx ON chat_sessions (origin_domain, id);
