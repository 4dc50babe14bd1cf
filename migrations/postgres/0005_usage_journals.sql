-- How far each journal of usage was taken into the sums. Moves in the same
-- transaction as they grow, so that nothing is added twice.
CREATE TABLE usage_journals (
    journal uuid NOT NULL,
    lane integer NOT NULL,
    position bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT usage_journals_pkey PRIMARY KEY (journal, lane),
    CONSTRAINT usage_journals_position_check CHECK (position >= 0)
);
CREATE INDEX usage_journals_updated_at_idx ON usage_journals (updated_at);
