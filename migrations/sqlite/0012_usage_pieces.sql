-- An hour is rolled up in pieces. While it is under way `until` is its end, which
-- keeps an older version away from it, and `done_…` say who is done: the last of
-- them in the order of the primary key of usage_hourly.
ALTER TABLE usage_rolled_up ADD COLUMN done_user_id blob;
ALTER TABLE usage_rolled_up ADD COLUMN done_key_id blob;
ALTER TABLE usage_rolled_up ADD COLUMN done_pass_id blob;
