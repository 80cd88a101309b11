#!/bin/sh
# A short selection of the tests on the newest torch that pip gives within the range of pyproject.toml, in .venv-newest or where
# $NEWEST says: what is taken of torch, the hazards, the minimal models. Arguments go to pytest, in place of these; with the
# one argument `torch` torch alone is installed.
set -eu
cd "$(dirname "$0")/.."
NEWEST=${NEWEST:-.venv-newest}
[ -x "$NEWEST/bin/python" ] || "${PYTHON:-python3}" -m venv "$NEWEST"
# Gigabytes, most of which are never imported, are not compiled to bytecode.
install() { "$NEWEST/bin/python" -m pip install --quiet --no-compile "$@"; }
if [ "$*" = torch ]; then
    install "$(sed -n 's/^dependencies.*"\(torch[^"]*\)".*/\1/p' pyproject.toml)"
    exit
fi
install -e ".[test]" pytest-xdist
"$NEWEST/bin/python" -c 'import torch; print("torch", torch.__version__)'
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
[ $# -gt 0 ] || set -- tests/hazards tests/reach/test_minimal.py::test_minimal tests/torch_internals/test_contracts.py \
    -k "not what_is_lost"
exec "$NEWEST/bin/python" -m pytest -m "not gpu" -n "${WORKERS:-2}" --dist worksteal "$@"
