#!/bin/sh
# What the tests run of fxpass, lines and branches: sh tests/coverage.sh [PYTEST ARGUMENTS]. The bodies of Triton kernels, which run
# on a GPU alone, are left out; so is what runs in processes that the tests start.
set -eu
cd "$(dirname "$0")/.."
exec sh tests/run.sh --cov --cov-report=term:skip-covered "$@"
