-- A stream that we end before its end is recorded as such. The version before
-- writes none of these and meets them only in the log of requests.
ALTER TABLE usage_requests DROP CONSTRAINT usage_requests_outcome_check;
-- What is there fits the narrower check, so nothing is scanned under the lock.
ALTER TABLE usage_requests ADD CONSTRAINT usage_requests_outcome_check
    CHECK (outcome IN ('completed', 'aborted', 'failed', 'cut', 'rejected')) NOT VALID;
