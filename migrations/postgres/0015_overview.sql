-- Twin of ../sqlite/0015_overview.sql; see 0001_init.sql for the naming. What
-- `GET /admin/overview` counts it finds here, without reading the tables.

-- Also for the list of those that are disabled.
CREATE INDEX users_is_active_idx ON users (is_active, id);
-- 4 is the role admin. They are counted while all that changes them waits.
CREATE INDEX users_admins_idx ON users (id) WHERE (roles & 4) <> 0;

-- Of what it is about, or SQLite would look into each row.
CREATE INDEX passes_unused_idx ON passes (activated_us, revoked_at)
    WHERE activated_us IS NULL AND revoked_at IS NULL;
-- When a pass that runs ends: those that have not are at its end.
CREATE INDEX passes_ends_us_idx ON passes ((activated_us + duration_hours * 3600000000))
    WHERE activated_us IS NOT NULL AND revoked_at IS NULL;

-- Ids of transactions sort by time.
CREATE INDEX ledger_entries_account_id_transaction_id_idx
    ON ledger_entries (account_id, transaction_id, amount_minor);
DROP INDEX ledger_entries_account_id_idx;
