#!/usr/bin/env bash
# Installs the project and runs every check, in a virtual environment of its own (VENV, default .venv-test).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv-test}
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -e '.[test]'
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -n "${WORKERS:-2}" "$@"
