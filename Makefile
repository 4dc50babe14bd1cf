# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run dev test check races torture rolling demo-load fmt openapi schemathesis bench bench-usage browser conformance n8n

# `make run ARGS="--help"`: further arguments of the program.
ARGS ?=
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## build and serve; needs no configuration and no service
	cargo build --release --locked
	@exec sh -c "$$RUN_SCRIPT"

dev: ## serve on Postgres and Redis from Docker, again after every change
	@exec sh -c "$$DEV_SCRIPT"

test: ## the whole check: format, lints, the suite on SQLite and on Postgres + Redis
	tests/run.sh

check: ## format, lints and documentation, without the tests
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

races: ## money at length: races, a model, kills, on both engines; half an hour
	tests/races.sh

torture: ## large bodies, kills, revocations, overload, and limits attacked for an hour
	tests/torture.sh

rolling: ## 100,000 requests while three instances behind nginx are restarted in turn
	bash -c 'set -e; . tests/services.sh; trap stop_services EXIT; start_services; \
	  TOLLGATE_TORTURE=1 cargo test --locked --test it -- --nocapture process::rolling'

demo-load: ## a minute of traffic of every kind; ARGS=--check: with Prometheus, every panel has data
	cargo build --release --locked
	deploy/demo/load.py --program $(TARGET_DIR)/release/tollgate $(ARGS)

fmt: ## format the sources
	cargo fmt

openapi: ## accept the OpenAPI document as it is now
	INSTA_UPDATE=always cargo test --locked --test it openapi

schemathesis: ## generated requests against the OpenAPI document
	tests/schemathesis.sh

browser: ## in Chromium: pages of every kind, the chat, JupyterLab, ComfyUI; ARGS="chat" for one
	tests/browser/run $(ARGS)

n8n: ## chats with a real n8n, which it installs from npm: 1.8 GB in target/n8n
	tests/n8n/run

conformance: ## the test-suite of an HTTP client with and without the gateway
	tests/conformance/run $(ARGS)

bench: ## CPU per request beside nginx; options: make bench ARGS="--rounds 3"
	bench/run $(ARGS)

bench-usage: ## reports on a year of 100 million requests; on Postgres with TEST_DATABASE_URL
	TOLLGATE_BENCH_USAGE=1 cargo test --release --locked --test it -- usage_bench --nocapture --test-threads=1

# With the chat's demonstration, unless some setting says otherwise: what is in the
# environment would hold over a file.
define RUN_SCRIPT
set -eu
program=$(TARGET_DIR)/release/tollgate
set -- $(ARGS)
config=''
for arg do
  case $$arg in
    --config=*) config=$${arg#--config=} ;;
  esac
  [ "$${before:-}" != --config ] || config=$$arg
  before=$$arg
done
from=$$("$$program" $${config:+--config "$$config"} config show 2>/dev/null |
  awk '$$1 == "CHAT_DEMO" { print $$NF }')
if [ "$$from" = default ]; then export CHAT_DEMO=true; fi
exec "$$program" serve "$$@"
endef
export RUN_SCRIPT

define DEV_SCRIPT
set -eu
compose="docker compose -f docker-compose.dev.yml"
if [ -z "$${DATABASE_URL:-}" ] || [ -z "$${REDIS_URL:-}" ]; then
  if ! docker info >/dev/null 2>&1 || ! docker compose version >/dev/null 2>&1; then
    cat >&2 <<TEXT
No Docker engine answers ("docker info", "docker compose version"). Either
  - start Docker (systemctl start docker, or Docker Desktop) and repeat "make dev", or
  - name a Postgres database and a Redis of your own:
      make dev DATABASE_URL=postgres://USER:PASSWORD@127.0.0.1:5432/tollgate REDIS_URL=redis://127.0.0.1:6379
  - or do without both: "make run" keeps everything in SQLite and in the process.
TEXT
    exit 1
  fi
  $$compose up -d --wait
  : "$${DATABASE_URL:=postgres://postgres:tollgate@$$($$compose port postgres 5432)/tollgate}"
  : "$${REDIS_URL:=redis://$$($$compose port redis 6379)}"
  echo "Postgres and Redis stay up; to end them: $$compose down --volumes"
fi
export DATABASE_URL REDIS_URL

if cargo watch --version >/dev/null 2>&1; then
  exec cargo watch -w src -w migrations -w Cargo.toml -x "run --locked -- serve $(ARGS)"
fi

# Without cargo-watch: look once a second for a file newer than the last build.
stamp=$$(mktemp) server=
stop() {
  [ -z "$$server" ] || { kill "$$server" 2>/dev/null; wait "$$server"; } || true
  server=
}
trap 'stop; rm -f "$$stamp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
while :; do
  touch "$$stamp"
  if cargo build --locked; then
    cargo run --quiet --locked -- serve $(ARGS) &
    server=$$!
  fi
  until [ -n "$$(find src migrations Cargo.toml Cargo.lock -type f -newer "$$stamp" 2>/dev/null | head -n 1)" ]; do
    sleep 1
  done
  stop
done
endef
export DEV_SCRIPT
