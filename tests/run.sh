#!/bin/sh
# Sets up what the tests need, in .venv or where $VENV says, and runs those that need no GPU. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"

# Installing again changes nothing as long as these files are the same.
wanted=$(cat pyproject.toml tests/requirements.txt tests/requirements-no-deps.txt | cksum)
if [ "$(cat "$VENV/kvfix-tests" 2>/dev/null || true)" != "$wanted" ]; then
    "$VENV/bin/python" -m pip install --quiet -e ".[test]" -r tests/requirements.txt
    "$VENV/bin/python" -m pip install --quiet --no-deps -r tests/requirements-no-deps.txt
    echo "$wanted" >"$VENV/kvfix-tests"
fi

# Two processes on two cores: threads of their own would only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$VENV/bin/python" -m pytest -m "not gpu and not packages and not browser" -n "${WORKERS:-2}" --dist worksteal "$@"
