#!/bin/sh
# compute-sanitizer on a small recorded core; exit status 1 if it finds anything. Kernels are compiled first, without it.
python3 tests/gpu/small_core.py || exit 1
status=0
for tool in memcheck racecheck; do
    compute-sanitizer --tool $tool --error-exitcode 1 python3 tests/gpu/small_core.py || status=1
done
exit $status
