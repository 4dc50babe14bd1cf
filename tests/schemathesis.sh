#!/usr/bin/env bash
# Requests generated from the OpenAPI document (https://schemathesis.readthedocs.io),
# sent as a user and as an admin: no answer may be a 5xx or differ from the document.
#
#   SCHEMATHESIS_EXAMPLES=30         requests per operation and phase
#   SCHEMATHESIS_SECONDS=900         the longest that one pass may take
#   SCHEMATHESIS_EXCLUDE_CHECKS=     checks to leave out, separated by commas
#   TOLLGATE_BIN=                    a built tollgate; otherwise `cargo build`
#
# Arguments go to every `schemathesis run`, e.g. --seed 1 or --include-path-regex /keys
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/services.sh
exec </dev/null

version='4.32.*'
mkdir -p "${CARGO_TARGET_DIR:-target}/schemathesis"
dir=$(cd "${CARGO_TARGET_DIR:-target}/schemathesis" && pwd)
python=$dir/venv/bin/python
server='' data='' failed=()

clean_up() {
  trap '' HUP INT TERM
  stop_group
  [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
  [ -z "$data" ] || rm -rf "$data"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------------------ tools

if [ ! -x "$dir/venv/bin/schemathesis" ]; then
  python3 -m venv --clear "$dir/venv" >/dev/null 2>&1 ||
    { install_packages python3 python3-venv && python3 -m venv --clear "$dir/venv"; } ||
    { say 'No Python 3 with venv. Install it: apt-get install python3-venv'; exit 1; }
fi
"$python" -m pip install --quiet --disable-pip-version-check "schemathesis==$version"

if [ -z "${TOLLGATE_BIN:-}" ]; then
  require_compiler
  cargo build --locked
  TOLLGATE_BIN=${CARGO_TARGET_DIR:-target}/debug/tollgate
fi
bin=$(cd "$(dirname "$TOLLGATE_BIN")" && pwd)/$(basename "$TOLLGATE_BIN")

# ------------------------------------------------------------------ server

data=$(mktemp -d)
port=$(free_port)
url=http://127.0.0.1:$port
password=$("$python" -c 'import secrets; print(secrets.token_urlsafe(24))')
ready() { "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$url/health/ready"; }

# Limits out of the way, and logins that outlast the run.
(cd "$data" && exec env -i PATH="$PATH" HOME="$data" DATA_DIR="$data" SERVER_HOST=127.0.0.1 SERVER_PORT="$port" \
  RATE_LIMIT_PER_MINUTE=1000000 RATE_LIMIT_PER_HOUR=10000000 AUTH_TOKEN_EXPIRY_MINUTES=600 \
  ADMIN_PASSWORD="$password" LOG_LEVEL=WARN "$bin" serve) >"$dir/server.log" 2>&1 &
server=$!
started "$server" ready || { say "The server did not start:"; tail -n 20 "$dir/server.log" >&2; exit 1; }

# ------------------------------------------------------------------ passes

# One line per pass: name, token, operations with a sign (- leave out, + only these).
# Operations that end the login or change the account under test are left out of
# the two main passes and come last, each with a login of its own.
"$python" - "$url" "$password" >"$data/passes" <<'PYTHON'
import json, re, sys, urllib.error, urllib.request

url, admin_password = sys.argv[1:]
FATAL = [("post", "/auth/logout"), ("post", "/auth/logout-all"), ("post", "/auth/password"), ("delete", "/auth/sessions/{}"),
         ("delete", "/users/me"), ("patch", "/admin/users/{}"), ("delete", "/admin/users/{}")]


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"}), timeout=30) as r:
            return json.load(r)
    except urllib.error.HTTPError as e:
        sys.exit(f"{path} answered {e.code}: {e.read().decode(errors='replace')[:500]}")


def login(username, password):
    return call("/api/v1/auth/login", {"username": username, "password": password})["access_token"]


def admin():
    return login("admin", admin_password)


users = 0


def user():
    global users
    users += 1
    name, password = f"schemathesis{users}", f"a long phrase, number {users}"
    call("/api/v1/auth/register", {"email": f"{name}@example.com", "username": name, "password": password})
    return login(name, password)


fatal, proxied = [], []
for path, item in call("/api/openapi.json")["paths"].items():
    plain = re.sub(r"\{[^}]*\}", "{}", path)
    for method, operation in item.items():
        if "/proxy/" in path or path.endswith("/auth/verify"):
            proxied.append(operation["operationId"])
        if any(method == m and plain.endswith(end) for m, end in FATAL):
            if "operationId" not in operation:
                sys.exit(f"{method} {path} has no operationId")
            fatal.append((path, operation["operationId"]))

without = " ".join(f"-{name}" for name in [name for _, name in fatal] + proxied) or "all"
print("user", user(), without, sep="\t")
print("admin", admin(), without, sep="\t")
# The proxied routes and the questions about them take every method and every body
# there is; the document shows one or two of them.
lenient = " ".join([f"+{name}" for name in proxied] + ["!unsupported_method,negative_data_rejection"])
print("proxied", user(), lenient, sep="\t")
for path, name in fatal:
    print(name, admin() if "/admin/" in path else user(), f"+{name}", sep="\t")
PYTHON

# A business rule (400) or an empty wallet (402) may refuse what the schema allows.
cat >"$dir/schemathesis.toml" <<'TOML'
# A schema cannot say everything that makes a value right: that one instant lies
# before another, that a cursor comes from an earlier page. 5xx is a finding of
# another check.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "400", "401", "402", "403", "404", "405", "409", "422", "429", "5xx"]
TOML

run_schemathesis() {
  cd "$dir" # where it finds its configuration
  # Interrupted at the bound, it still reports what it found.
  exec timeout --signal=INT --kill-after=30 "${SCHEMATHESIS_SECONDS:-900}" venv/bin/schemathesis run "$url/api/openapi.json" "$@"
}

while IFS=$'\t' read -r name token operations <&3; do
  printf '\n==> %s\n' "$name"
  flags=(--checks all --max-examples "${SCHEMATHESIS_EXAMPLES:-30}" --header "Authorization: Bearer $token"
    # Random credentials beside the good one would only ever be answered 401.
    --generation-with-security-parameters false
    --request-timeout 20 --continue-on-failure --generation-database none)
  [ -z "${SCHEMATHESIS_EXCLUDE_CHECKS:-}" ] || flags+=(--exclude-checks "$SCHEMATHESIS_EXCLUDE_CHECKS")
  for operation in $operations; do
    case $operation in
      !*) flags+=(--exclude-checks "${operation#!}") ;;
      -*) flags+=(--exclude-operation-id "${operation#-}") ;;
      +*) flags+=(--include-operation-id "${operation#+}" --phases 'examples,coverage,fuzzing') ;;
    esac
  done
  code=0
  run_group run_schemathesis "${flags[@]}" "$@" || code=$?
  [ "$code" != 124 ] || say "Not finished within ${SCHEMATHESIS_SECONDS:-900} s: raise SCHEMATHESIS_SECONDS or lower SCHEMATHESIS_EXAMPLES"
  [ "$code" = 0 ] || failed+=("$name")
  kill -0 "$server" 2>/dev/null || { say 'The server ended:'; tail -n 50 "$dir/server.log" >&2; exit 1; }
done 3<"$data/passes"

printf '\n==> summary\n'
if [ ${#failed[@]} = 0 ]; then
  echo 'No findings.'
else
  echo "Findings in: ${failed[*]} (see above; the server's log is $dir/server.log)"
  exit 1
fi
