-- Twin of ../postgres/0008_credential_changes.sql (see there). There is one writer
-- at a time, so ids are given in the order of the commits.
CREATE TABLE credential_changes (
    id integer NOT NULL CONSTRAINT credential_changes_pkey PRIMARY KEY AUTOINCREMENT,
    position integer GENERATED ALWAYS AS (id) VIRTUAL,
    kind text NOT NULL,
    subject blob NOT NULL,
    version integer NOT NULL,
    changed_us integer NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS integer))
) STRICT;
CREATE INDEX credential_changes_position_idx ON credential_changes (position);
CREATE INDEX credential_changes_changed_us_idx ON credential_changes (changed_us);

CREATE TRIGGER users_changed AFTER UPDATE OF version ON users WHEN old.version <> new.version
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('account', new.id, new.version);
END;
CREATE TRIGGER users_deleted AFTER DELETE ON users
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('account', old.id, old.version + 1);
END;

CREATE TRIGGER login_sessions_changed AFTER UPDATE OF version ON login_sessions
    WHEN old.version <> new.version
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('session', new.id, new.version);
END;
CREATE TRIGGER login_sessions_deleted AFTER DELETE ON login_sessions
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('session', old.id, old.version + 1);
END;

CREATE TRIGGER passes_changed AFTER UPDATE OF version ON passes WHEN old.version <> new.version
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('pass', new.hash, new.version);
END;
CREATE TRIGGER passes_deleted AFTER DELETE ON passes
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('pass', old.hash, old.version + 1);
END;

CREATE TRIGGER api_keys_changed AFTER UPDATE OF version ON api_keys
    WHEN old.version <> new.version
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    SELECT 'key', hash, new.version FROM api_key_secrets WHERE key_id = new.id;
END;
CREATE TRIGGER api_key_secrets_deleted AFTER DELETE ON api_key_secrets
BEGIN
    INSERT INTO credential_changes (kind, subject, version)
    VALUES ('key', old.hash, 9223372036854775807);
END;
