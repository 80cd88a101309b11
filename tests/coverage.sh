#!/bin/sh
# Runs the tests, then prints which lines and branches of fxpass they ran: sh tests/coverage.sh [PYTEST ARGUMENTS]. The bodies of
# Triton kernels, which run on a GPU alone, are left out; so is what runs in processes that the tests start. Where LEAST
# is given, less than so many percent of the lines is a failure.
set -eu
cd "$(dirname "$0")/.."
notes=$(mktemp -d)
trap 'rm -r "$notes"' EXIT
status=0
KVFIX_COVERAGE="$notes" sh tests/run.sh "$@" || status=$?
"${VENV:-.venv}/bin/python" tests/measured.py "$notes" "${LEAST:-0}"
exit "$status"
