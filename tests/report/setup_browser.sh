#!/bin/sh
# Installs what opens the report's page in tests, on Debian: PYTHON=.venv/bin/python sh tests/report/setup_browser.sh
set -eu
PYTHON=${PYTHON:-python3}
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium chromium-driver >/dev/null
fi
"$PYTHON" -m pip install --quiet selenium
