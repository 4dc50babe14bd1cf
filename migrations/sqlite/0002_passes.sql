-- Twin of ../postgres/0002_passes.sql (see there); see 0001_init.sql for the types.

-- Who holds money. A wallet's id is its user's, without a foreign key: what was
-- paid is accounted for after the user is gone. The three accounts of the house
-- have fixed ids; their balance is the sum of their entries and is not kept,
-- since one row that every purchase changes would make all of them wait for
-- each other.
CREATE TABLE ledger_accounts (
    id blob NOT NULL CONSTRAINT ledger_accounts_pkey PRIMARY KEY,
    kind text NOT NULL,
    balance_minor integer,
    -- Transactions of a wallet so far.
    seq integer NOT NULL,
    created_at text NOT NULL,
    CONSTRAINT ledger_accounts_kind_check
        CHECK (kind IN ('wallet', 'revenue', 'topup', 'promotion')),
    CONSTRAINT ledger_accounts_balance_check CHECK (
        (kind = 'wallet') = (balance_minor IS NOT NULL)
        AND (balance_minor IS NULL OR balance_minor BETWEEN 0 AND 1000000000000000)
    ),
    CONSTRAINT ledger_accounts_seq_check CHECK (seq >= 0)
) STRICT;
INSERT INTO ledger_accounts (id, kind, balance_minor, seq, created_at) VALUES
    (x'00000000000000000000000000000001', 'revenue', NULL, 0, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
    (x'00000000000000000000000000000002', 'topup', NULL, 0, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
    (x'00000000000000000000000000000003', 'promotion', NULL, 0, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'));

-- What happened to a wallet, in its order. The hash covers the row and the hash
-- of the wallet's transaction before it.
CREATE TABLE ledger_transactions (
    id blob NOT NULL CONSTRAINT ledger_transactions_pkey PRIMARY KEY,
    wallet_id blob NOT NULL
        CONSTRAINT ledger_transactions_wallet_id_fkey REFERENCES ledger_accounts (id),
    seq integer NOT NULL,
    kind text NOT NULL,
    -- What it did to the wallet.
    amount_minor integer NOT NULL,
    balance_after_minor integer NOT NULL,
    -- No foreign keys: passes go with their user, vouchers may be cleared.
    pass_id blob,
    voucher_id blob,
    -- The purchase that a refund gives back.
    reverses_id blob
        CONSTRAINT ledger_transactions_reverses_id_fkey REFERENCES ledger_transactions (id),
    reason text,
    -- Who did it, unless it was the wallet's user.
    actor_id blob,
    created_at text NOT NULL,
    hash blob NOT NULL,
    CONSTRAINT ledger_transactions_kind_check
        CHECK (kind IN ('purchase', 'refund', 'credit', 'topup', 'adjustment')),
    CONSTRAINT ledger_transactions_amount_check CHECK (
        CASE kind
            WHEN 'purchase' THEN amount_minor < 0 AND pass_id IS NOT NULL
            WHEN 'refund' THEN amount_minor > 0 AND reverses_id IS NOT NULL
            WHEN 'adjustment' THEN amount_minor <> 0
            ELSE amount_minor > 0
        END
    ),
    CONSTRAINT ledger_transactions_balance_check CHECK (balance_after_minor >= 0),
    CONSTRAINT ledger_transactions_seq_check CHECK (seq > 0),
    CONSTRAINT ledger_transactions_hash_check CHECK (length(hash) = 32)
) STRICT;
CREATE UNIQUE INDEX ledger_transactions_wallet_id_seq_key ON ledger_transactions (wallet_id, seq);
-- A pass is paid once, and a purchase is given back once.
CREATE UNIQUE INDEX ledger_transactions_pass_id_key ON ledger_transactions (pass_id)
    WHERE kind = 'purchase';
CREATE UNIQUE INDEX ledger_transactions_reverses_id_key ON ledger_transactions (reverses_id)
    WHERE kind = 'refund';

-- Both sides of a transaction; they add up to nothing.
CREATE TABLE ledger_entries (
    transaction_id blob NOT NULL
        CONSTRAINT ledger_entries_transaction_id_fkey REFERENCES ledger_transactions (id),
    account_id blob NOT NULL
        CONSTRAINT ledger_entries_account_id_fkey REFERENCES ledger_accounts (id),
    amount_minor integer NOT NULL,
    CONSTRAINT ledger_entries_pkey PRIMARY KEY (transaction_id, account_id),
    CONSTRAINT ledger_entries_amount_check CHECK (amount_minor <> 0)
) STRICT;
CREATE INDEX ledger_entries_account_id_idx ON ledger_entries (account_id);

CREATE TRIGGER ledger_transactions_no_update BEFORE UPDATE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_transactions_no_delete BEFORE DELETE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TABLE passes (
    id blob NOT NULL CONSTRAINT passes_pkey PRIMARY KEY,
    user_id blob NOT NULL
        CONSTRAINT passes_user_id_fkey REFERENCES users (id) ON DELETE CASCADE,
    hash blob NOT NULL,
    -- The text for its owner, sealed with the key of this id.
    sealed blob NOT NULL,
    sealing_key text NOT NULL,
    prefix text NOT NULL,
    duration_hours integer NOT NULL,
    upstream text,
    origin text NOT NULL,
    price_minor integer NOT NULL,
    refunded_minor integer,
    created_at text NOT NULL,
    -- Microseconds since 1970, so that both engines can add hours to it: when it
    -- ends is computed, never stored.
    activated_us integer,
    revoked_at text,
    version integer NOT NULL,
    CONSTRAINT passes_hash_check CHECK (length(hash) = 32),
    CONSTRAINT passes_duration_check CHECK (duration_hours BETWEEN 1 AND 87600),
    CONSTRAINT passes_origin_check
        CHECK (origin IN ('purchase', 'grant', 'voucher', 'registration')),
    CONSTRAINT passes_price_check
        CHECK (price_minor >= 0 AND (origin = 'purchase' OR price_minor = 0)),
    -- Refunded is revoked, and never more than was paid.
    CONSTRAINT passes_refunded_check CHECK (
        refunded_minor IS NULL
        OR (revoked_at IS NOT NULL AND refunded_minor BETWEEN 0 AND price_minor)
    ),
    CONSTRAINT passes_version_check CHECK (version > 0)
) STRICT;
CREATE UNIQUE INDEX passes_hash_key ON passes (hash);
CREATE INDEX passes_user_id_idx ON passes (user_id, id);
CREATE INDEX passes_sealing_key_idx ON passes (sealing_key, id);

CREATE TABLE vouchers (
    id blob NOT NULL CONSTRAINT vouchers_pkey PRIMARY KEY,
    hash blob NOT NULL,
    prefix text NOT NULL,
    -- Made together.
    batch_id blob NOT NULL,
    note text,
    -- Either money or a pass.
    amount_minor integer,
    duration_hours integer,
    upstream text,
    expires_at text,
    max_uses integer NOT NULL,
    max_uses_per_user integer NOT NULL,
    uses integer NOT NULL,
    created_by blob,
    created_at text NOT NULL,
    revoked_at text,
    CONSTRAINT vouchers_hash_check CHECK (length(hash) = 32),
    CONSTRAINT vouchers_grant_check CHECK (
        (amount_minor IS NULL) <> (duration_hours IS NULL)
        AND (amount_minor IS NULL OR amount_minor > 0)
        AND (duration_hours IS NULL OR duration_hours BETWEEN 1 AND 87600)
        AND (upstream IS NULL OR duration_hours IS NOT NULL)
    ),
    CONSTRAINT vouchers_uses_check
        CHECK (uses BETWEEN 0 AND max_uses AND max_uses_per_user > 0)
) STRICT;
CREATE UNIQUE INDEX vouchers_hash_key ON vouchers (hash);
CREATE INDEX vouchers_batch_id_idx ON vouchers (batch_id, id);

CREATE TABLE voucher_redemptions (
    id blob NOT NULL CONSTRAINT voucher_redemptions_pkey PRIMARY KEY,
    voucher_id blob NOT NULL
        CONSTRAINT voucher_redemptions_voucher_id_fkey REFERENCES vouchers (id),
    user_id blob NOT NULL,
    -- What came of it; one of the two.
    transaction_id blob,
    pass_id blob,
    created_at text NOT NULL,
    CONSTRAINT voucher_redemptions_result_check
        CHECK ((transaction_id IS NULL) <> (pass_id IS NULL))
) STRICT;
CREATE INDEX voucher_redemptions_voucher_id_idx ON voucher_redemptions (voucher_id, user_id);

-- What a repeated request must not do again. Written in the transaction of the
-- effect itself.
CREATE TABLE idempotency_keys (
    user_id blob NOT NULL,
    key text NOT NULL,
    -- Of what was asked for: another request under the same key is a mistake.
    request_hash blob NOT NULL,
    result_id blob NOT NULL,
    created_at text NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_request_hash_check CHECK (length(request_hash) = 32)
) STRICT;
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
