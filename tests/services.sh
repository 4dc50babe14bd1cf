# shellcheck shell=bash
# A Postgres and a Redis to test against. To be sourced by bash:
#
#   . tests/services.sh
#   trap stop_services EXIT
#   start_services
#
# start_services takes TEST_DATABASE_URL and TEST_REDIS_URL where they are given;
# what is missing it starts on free ports, with Docker Compose or else with the
# machine's own servers (installed first where it may), and exports
#
#   TEST_DATABASE_URL   superuser's URL of the database `postgres`
#   TEST_REDIS_URL
#   TEST_POSTGRES_BIN   folder with `postgres` and `initdb`  } where they are found: for
#   TEST_REDIS_SERVER   path of `redis-server`               } tests that kill servers of their own
#
# stop_services ends what start_services began, and nothing else.

services_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
services_dir='' services_project='' services_jobs=()
services_as=(env) # what Postgres runs under: nothing, or another account

say() { printf '%s\n' "$*" >&2; }

# ------------------------------------------------------------------ packages

# install_packages NAME...: with apt-get as root, without starting any service.
install_packages() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "Installing $*"
  (
    # Debian starts a server as soon as it is installed, unless this file says no.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      trap 'rm -f "$policy"' EXIT
      trap 'exit 130' INT
      trap 'exit 143' TERM
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
  ) </dev/null >&2
}

# What the build of the bundled SQLite needs.
require_compiler() {
  command -v cc >/dev/null || install_packages build-essential || {
    say 'No C compiler (cc). Install one: apt-get install build-essential, or xcode-select --install'
    return 1
  }
}

# ------------------------------------------------------------------ helpers

# run_group COMMAND...: in a process group of its own and waited for in a way that
# a trap can interrupt, so that stop_group in the trap ends all that it started.
group=''
run_group() {
  local code=0
  set -m
  "$@" &
  group=$!
  set +m
  wait "$group" || code=$?
  group=''
  return "$code"
}

stop_group() {
  [ -n "$group" ] || return 0
  kill -TERM -- "-$group" 2>/dev/null || true
  for _ in $(seq 50); do # it may want a moment to end its own children
    kill -0 -- "-$group" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$group" 2>/dev/null || true
  group=''
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that systems hand out to outgoing connections.
free_port() {
  local port
  while port=$((15000 + RANDOM % 15000)); do
    port_answers "$port" || break
  done
  echo "$port"
}

# The newest installed Postgres: PATH first, then where Debian keeps it.
postgres_bin() {
  local dir
  if command -v postgres >/dev/null && command -v initdb >/dev/null; then
    dirname "$(command -v postgres)"
    return
  fi
  for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    [ -x "$dir/postgres" ] && echo "$dir" && return
  done
  return 1
}

export_binaries() {
  local found
  if [ -z "${TEST_POSTGRES_BIN:-}" ] && found=$(postgres_bin); then export TEST_POSTGRES_BIN=$found; fi
  if [ -z "${TEST_REDIS_SERVER:-}" ] && found=$(command -v redis-server); then export TEST_REDIS_SERVER=$found; fi
}

# ------------------------------------------------------------------ Docker Compose

compose() { docker compose -p "$services_project" -f "$services_root/docker-compose.dev.yml" "$@" >&2 </dev/null; }

start_compose() {
  docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 || return 1
  say 'Starting Postgres and Redis with Docker Compose'
  services_project=tollgate-test-$$
  local POSTGRES_PORT REDIS_PORT
  POSTGRES_PORT=$(free_port) REDIS_PORT=$(free_port)
  export POSTGRES_PORT REDIS_PORT
  if ! compose up -d --wait || ! port_answers "$POSTGRES_PORT" || ! port_answers "$REDIS_PORT"; then
    say 'Docker Compose could not start them'
    stop_compose
    return 1
  fi
  : "${TEST_DATABASE_URL:=postgres://postgres:tollgate@127.0.0.1:$POSTGRES_PORT/postgres}"
  : "${TEST_REDIS_URL:=redis://127.0.0.1:$REDIS_PORT}"
}

stop_compose() {
  [ -z "$services_project" ] || compose down --volumes --timeout 2 || true
  services_project=''
}

# ------------------------------------------------------------------ this machine's own servers

start_own() {
  local missing=()
  [ -n "${TEST_DATABASE_URL:-}" ] || postgres_bin >/dev/null || missing+=(postgresql)
  [ -n "${TEST_REDIS_URL:-}" ] || command -v redis-server >/dev/null || missing+=(redis-server)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" || return 1

  # Not under TMPDIR: the path of a socket may not be long, and the account
  # that runs Postgres must be able to reach it.
  services_dir=$(mktemp -d /tmp/tollgate-services.XXXXXX) || return 1
  chmod 711 "$services_dir"
  if [ -z "${TEST_REDIS_URL:-}" ]; then start_redis || return 1; fi
  if [ -z "${TEST_DATABASE_URL:-}" ]; then start_postgres || return 1; fi
}

start_postgres() {
  local bin port account data=$services_dir/postgres
  bin=$(postgres_bin) || return 1
  mkdir -m 700 "$data"
  if [ "$(id -u)" = 0 ]; then # Postgres refuses to run as root
    account=postgres
    id "$account" >/dev/null 2>&1 || account=nobody
    chown "$account" "$data"
    services_as=(setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups)
  fi
  say "Starting Postgres ($bin)"
  # From / because the account may not be allowed into the current folder.
  (cd / && exec "${services_as[@]}" "$bin/initdb" -D "$data" -U postgres --auth=trust -E UTF8 --no-locale --no-sync) \
    >"$services_dir/postgres.log" 2>&1 </dev/null || { cat "$services_dir/postgres.log" >&2; return 1; }
  for _ in 1 2 3; do # another process may take the port between our look and the start
    port=$(free_port)
    # No fsync: the data need not survive a power cut. Everything else as in production.
    (cd / && exec "${services_as[@]}" "$bin/postgres" -D "$data" -p "$port" -k "$data" -c listen_addresses=127.0.0.1 \
      -c max_connections=200 -c fsync=off) >"$services_dir/postgres.log" 2>&1 </dev/null &
    services_jobs+=($!)
    if started $! grep -q '^ready' "$data/postmaster.pid"; then
      export TEST_DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
      return
    fi
  done
  tail -n 20 "$services_dir/postgres.log" >&2
  return 1
}

start_redis() {
  local port
  say "Starting Redis ($(command -v redis-server))"
  for _ in 1 2 3; do
    port=$(free_port)
    redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$services_dir" \
      >"$services_dir/redis.log" 2>&1 </dev/null &
    services_jobs+=($!)
    if started $! port_answers "$port"; then
      export TEST_REDIS_URL=redis://127.0.0.1:$port
      return
    fi
  done
  tail -n 20 "$services_dir/redis.log" >&2
  return 1
}

# started PID CHECK...: until the check holds; no when the process ends or a minute passes.
started() {
  local pid=$1
  shift
  for _ in $(seq 600); do
    kill -0 "$pid" 2>/dev/null || return 1
    "$@" 2>/dev/null && return 0
    sleep 0.1
  done
  return 1
}

stop_own() {
  [ -n "$services_dir" ] || return 0
  local pid
  for pid in ${services_jobs[@]+"${services_jobs[@]}"}; do
    kill -INT "$pid" 2>/dev/null || true # to Postgres: do not wait for clients
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$services_dir"
  services_dir='' services_jobs=()
}

# ------------------------------------------------------------------ what callers use

start_services() {
  if [ -z "${TEST_DATABASE_URL:-}" ] || [ -z "${TEST_REDIS_URL:-}" ]; then
    start_compose || start_own || {
      cat >&2 <<'TEXT'

There is no Postgres and Redis to test against. Do one of these and try again:
  - name servers that run already (a Postgres superuser: every test makes a database of its own):
      export TEST_DATABASE_URL=postgres://USER:PASSWORD@HOST:5432/postgres
      export TEST_REDIS_URL=redis://HOST:6379
  - start Docker, so that `docker info` answers and `docker compose version` too
  - install both servers; they are started on free ports and stopped again:
      apt-get install postgresql redis-server       (Debian, Ubuntu)
      dnf install postgresql-server redis           (Fedora)
      brew install postgresql@16 redis              (macOS; put postgresql@16's bin folder into PATH)
TEXT
      return 1
    }
  fi
  export TEST_DATABASE_URL TEST_REDIS_URL
  export_binaries
}

stop_services() {
  stop_compose
  stop_own
}
