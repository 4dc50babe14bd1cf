-- An hour is rolled up in pieces. While it is under way `until` is its end, which
-- keeps an older version away from it, and `done_…` say who is done: the last of
-- them in the order of the primary key of usage_hourly.
ALTER TABLE usage_rolled_up
    ADD COLUMN done_user_id uuid,
    ADD COLUMN done_key_id uuid,
    ADD COLUMN done_pass_id uuid;

-- To make and drop a month is to own the tables. Who may call these need not:
-- they do it as their owner, in the schema that they were made in, and nobody
-- calls them who was not allowed to.
DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['usage_add_month(timestamptz)', 'usage_drop_months(timestamptz)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp',
            signature, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END $$;
