#!/bin/sh
# Installs what tests/reach runs, beside the torch that is there: PYTHON=.venv/bin/python tests/reach/setup.sh
set -eu
PYTHON=${PYTHON:-python3}
"$PYTHON" -m pip install --quiet beartype einops einx "gluonts[torch]==0.16.2" huggingface_hub jaxtyping lightning-utilities loguru \
    more-itertools numba psutil tiktoken
"$PYTHON" -m pip install --quiet --no-deps -r "$(dirname "$0")/requirements.txt"
