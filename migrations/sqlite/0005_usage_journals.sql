-- Twin of ../postgres/0005_usage_journals.sql; see 0001_init.sql for the naming.

CREATE TABLE usage_journals (
    journal blob NOT NULL,
    lane integer NOT NULL,
    position integer NOT NULL,
    updated_at text NOT NULL,
    CONSTRAINT usage_journals_pkey PRIMARY KEY (journal, lane),
    CONSTRAINT usage_journals_position_check CHECK (position >= 0)
) STRICT;
CREATE INDEX usage_journals_updated_at_idx ON usage_journals (updated_at);
