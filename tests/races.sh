#!/usr/bin/env bash
# The tests of money at length: 1,000 rounds of each race, more sequences against
# the model, 200 kills; on SQLite and on Postgres + Redis. Then how many passes
# are sold a second. Takes about half an hour; see services.sh for the servers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/services.sh
exec </dev/null

clean_up() {
  trap '' HUP INT TERM
  stop_group
  stop_services
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

start_services
export TOLLGATE_RACE_ROUNDS=${TOLLGATE_RACE_ROUNDS:-1000}
export TOLLGATE_MODEL_CASES=${TOLLGATE_MODEL_CASES:-5000}
without=(env -u TEST_DATABASE_URL -u TEST_REDIS_URL -u TEST_POSTGRES_BIN -u TEST_REDIS_SERVER)
tests=(money_races money_model money_faults process::money_crash)
failed=0

printf '\n==> on SQLite and memory\n'
run_group "${without[@]}" cargo test --locked --test it -- "${tests[@]}" || failed=1
printf '\n==> on Postgres and Redis\n'
run_group cargo test --locked --test it -- "${tests[@]}" || failed=1

printf '\n==> purchases a second\n'
measure=(cargo test --release --locked --test it -- purchases_a_second --ignored --nocapture)
run_group "${without[@]}" "${measure[@]}" || failed=1
run_group "${measure[@]}" || failed=1
exit "$failed"
