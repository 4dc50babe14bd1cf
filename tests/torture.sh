#!/usr/bin/env bash
# What CI has no time for, each with its figures: large bodies through the program
# and the memory they take, 50 kills and 50 stops under load on SQLite and on
# Postgres, 300 revocations over three instances, ten times the load that it can
# take, 100,000 requests while instances are restarted, and limits attacked for an
# hour (TOLLGATE_LIMIT_SECONDS). Takes about two hours; see services.sh for the servers. Ends with a summary, of which
# docs/torture.md keeps the last one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/services.sh
exec </dev/null

summary=$(mktemp) failed=0

clean_up() {
  trap '' HUP INT TERM
  stop_group
  stop_services
  rm -f "$summary"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# part NAME COMMAND...: what its tests print is in the summary, beside their verdicts.
part() {
  local name=$1 verdict=ok started=$SECONDS output
  shift
  printf '\n==> %s\n' "$name"
  output=$(mktemp)
  run_group "$@" >"$output" || { verdict=FAILED; failed=1; }
  cat "$output"
  {
    printf '\n%s: %s, %d s\n' "$name" "$verdict" $((SECONDS - started))
    grep -Ev '^(running |test result|$)' "$output" | sed 's/^/    /' || true
  } >>"$summary"
  rm -f "$output"
}

start_services
tests=(cargo test --locked --test it -- --nocapture --test-threads=1)
without=(env -u TEST_DATABASE_URL -u TEST_REDIS_URL -u TEST_POSTGRES_BIN -u TEST_REDIS_SERVER)
# Both: how often a process is killed, and how often it is stopped in order.
kills=("${tests[@]}" process::usage_crash::what_was_answered)
rounds=${TOLLGATE_RACE_ROUNDS:-50}

part 'large bodies' "${without[@]}" TOLLGATE_TORTURE=1 "${tests[@]}" process::backpressure
part 'kills and stops, SQLite' "${without[@]}" TOLLGATE_RACE_ROUNDS="$rounds" "${kills[@]}"
part 'kills and stops, Postgres' env TOLLGATE_RACE_ROUNDS="$rounds" "${kills[@]}"
part 'revocations' env TOLLGATE_TORTURE=1 "${tests[@]}" instances::revocation::three_instances
part 'overload' "${without[@]}" TOLLGATE_TORTURE=1 cargo test --release --locked --test it -- \
  --nocapture --test-threads=1 process::overload
part 'chats' env TOLLGATE_TORTURE=1 cargo test --release --locked --test it -- \
  --nocapture --test-threads=1 process::chat
part 'rolling restart' env TOLLGATE_TORTURE=1 "${tests[@]}" process::rolling
part 'limits under overload' "${tests[@]}" limiter::overload --skip no_window
part 'limits under attack' env TOLLGATE_LIMIT_SECONDS="${TOLLGATE_LIMIT_SECONDS:-3600}" \
  "${tests[@]}" limiter::overload::no_window

printf '\n==> summary\n'
cat "$summary"
exit "$failed"
