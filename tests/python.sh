# shellcheck shell=bash
# Tests in Python: its packages, and the gateway they ask. To be sourced by bash
# after services.sh.

# python_with FOLDER REQUIREMENTS: a virtual environment in FOLDER with what the
# file lists, made once; sets `python`.
python_with() {
  local folder=$1 requirements=$2
  python=$folder/venv/bin/python
  mkdir -p "$folder"
  cmp -s "$requirements" "$folder/venv/requirements.txt" && return
  python3 -m venv --clear "$folder/venv" >/dev/null 2>&1 ||
    { install_packages python3 python3-venv && python3 -m venv --clear "$folder/venv"; } ||
    { say 'No Python 3 with venv. Install it: apt-get install python3-venv'; return 1; }
  "$python" -m pip install --quiet --disable-pip-version-check -r "$requirements" || return 1
  cp "$requirements" "$folder/venv/requirements.txt"
}

# Sets TOLLGATE_BIN to a built tollgate, if it is not given.
tollgate_bin() {
  if [ -z "${TOLLGATE_BIN:-}" ]; then
    require_compiler
    cargo build --locked
    TOLLGATE_BIN=${CARGO_TARGET_DIR:-target}/debug/tollgate
  fi
  TOLLGATE_BIN=$(cd "$(dirname "$TOLLGATE_BIN")" && pwd)/$(basename "$TOLLGATE_BIN")
  export TOLLGATE_BIN
}
