-- Twin of ../postgres/0013_chat_changes.sql (see there).
CREATE TRIGGER chat_sessions_changed AFTER UPDATE OF version ON chat_sessions
    WHEN old.version <> new.version
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    SELECT 'chat', new.hash, new.version
    UNION SELECT 'chat', new.previous_hash, new.version WHERE new.previous_hash IS NOT NULL
    UNION SELECT 'chat', old.previous_hash, new.version WHERE old.previous_hash IS NOT NULL;
END;

CREATE TRIGGER users_chats_condemned BEFORE DELETE ON users
BEGIN
    UPDATE chat_sessions
    SET ended_at = coalesce(ended_at, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
        expires_at = '1970-01-01T00:00:00+00:00',
        version = version + 1
    WHERE user_id = old.id AND expires_at > '1970-01-01T00:00:00+00:00';
END;

-- For operators who look for the sessions of one site, newest first.
CREATE INDEX chat_sessions_origin_domain_idx ON chat_sessions (origin_domain, id);
