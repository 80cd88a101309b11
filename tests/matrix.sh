#!/bin/sh
# The CPU suite on several releases of torch, a virtual environment each: sh tests/matrix.sh [RELEASE ...] [-- PYTEST ARGUMENTS].
# "newest" is what pip gives within the range of pyproject.toml.
set -u
cd "$(dirname "$0")/.."
releases=
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    releases="$releases $1"
    shift
done
[ $# -gt 0 ] && shift
export KVFIX_EVERY_NAME=1  # CI tries a sample of what is computed without a private name
failed=
for release in ${releases:-2.11.0 2.13.0 2.14.1 newest}; do
    venv=.venv-$release
    wanted="torch==$release"
    [ "$release" != newest ] || wanted=$(sed -n 's/^dependencies.*"\(torch[^"]*\)".*/\1/p' pyproject.toml)
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet "$wanted" || { failed="$failed $release"; continue; }
    echo "== torch $("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')"
    VENV=$venv sh tests/run.sh "$@" || failed="$failed $release"
done
[ -z "$failed" ] || { echo "failed on:$failed"; exit 1; }
