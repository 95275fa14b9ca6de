#!/usr/bin/env bash
# Writes requirements/*.lock: every package of an image at the version of constraints.txt with the sha256 of its files.
#   pip install uv==0.13.8 && bash scripts/lock.sh
# Run it after each change of constraints.txt or of the dependencies in pyproject.toml; a test finds what was forgotten.
set -euo pipefail
cd "$(dirname "$0")/.."

# For the oldest supported Python: what it needs beyond later ones (async-timeout) does no harm there. Hashes are of all wheels.
lock() {  # NAME EXTRAS...
  local name=$1; shift
  uv pip compile pyproject.toml requirements/build.in "${@/#/--extra=}" --constraints constraints.txt --generate-hashes \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --no-header --no-annotate --quiet \
    --output-file "requirements/$name.lock"
}

lock service service postgres telemetry s3
lock worker core worker postgres telemetry s3
