#!/usr/bin/env bash
# The whole check: format, lints, the suite on both storage engines (SQLite with
# everything in the process, Postgres + Redis), and the browser's tests. Starts the
# servers it needs and leaves nothing running. See services.sh for where Postgres and Redis come from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/services.sh
exec </dev/null

results=() failed=0 skipped='' no_promtool=''

clean_up() {
  trap '' HUP INT TERM
  stop_group
  stop_services
  [ -z "$skipped" ] || rm -f "$skipped"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# phase NAME COMMAND...: a failure is noted, and the next phase runs still.
phase() {
  local name=$1 started=$SECONDS verdict=ok
  shift
  printf '\n==> %s\n' "$name"
  run_group "$@" || { verdict=FAILED; failed=1; }
  results+=("$(printf '%-6s  %5ds  %s' "$verdict" $((SECONDS - started)) "$name")")
}

command -v cargo >/dev/null || { say 'No cargo: install Rust from https://rustup.rs'; exit 1; }
require_compiler
# First, so that missing servers are known before minutes of compiling.
printf '==> services\n'
start_services
# The example configurations are tested in their own programs.
for proxy in nginx caddy; do
  command -v "$proxy" >/dev/null || [ -x "/usr/sbin/$proxy" ] || install_packages "$proxy" ||
    say "No $proxy: what its example configuration does is not tested"
done

# Alerts and metrics are held against Prometheus' own checker.
command -v promtool >/dev/null || install_packages prometheus || no_promtool=1

# A snapshot that differs is a failure here; `make openapi` accepts one.
export INSTA_UPDATE=${INSTA_UPDATE:-no}

[ -n "$no_promtool" ] || export TEST_PROMTOOL=$(command -v promtool)
phase 'format' cargo fmt --check
phase 'lints' cargo clippy --all-targets --locked -- -D warnings
phase 'documentation' env RUSTDOCFLAGS='-D warnings' \
  cargo doc --no-deps --document-private-items --locked
phase 'tests on SQLite and memory' \
  env -u TEST_DATABASE_URL -u TEST_REDIS_URL -u TEST_POSTGRES_BIN -u TEST_REDIS_SERVER cargo test --locked
phase 'tests on Postgres and Redis' cargo test --locked
skipped=$(mktemp)
phase 'tests in Chromium' env SKIPPED="$skipped" tests/browser/run
[ ! -s "$skipped" ] || results+=("SKIPPED         tests in Chromium: $(cat "$skipped")")

[ -z "$no_promtool" ] || results+=('SKIPPED         alert rules and metrics: no promtool (package prometheus)')

printf '\n==> summary\n'
printf '%s\n' "${results[@]}"
if [ "$failed" = 0 ]; then echo 'Everything passed.'; else echo 'Something failed: see above.'; fi
exit "$failed"
