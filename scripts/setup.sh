#!/usr/bin/env bash
# Makes the private environment: setup.sh VENV EXTRAS [more pip arguments]. Idempotent. Called by `make setup`.
set -euo pipefail
venv=$1 extras=$2
shift 2

say() { printf '%s\n' "$*" >&2; }
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

# 1. A Python that mediapipe has wheels for.
if [ ! -x "$venv/bin/python" ] || ! fits "$venv/bin/python"; then
  python=
  for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
    if command -v "$candidate" >/dev/null && fits "$candidate"; then python=$candidate; break; fi
  done
  if [ -z "$python" ]; then
    say "setup: Python 3.11 or 3.12 is needed and none was found."
    say "       Debian, Ubuntu: apt-get install python3.11 python3.11-venv; or name one: make setup PYTHON=/path/to/python3.11"
    exit 1
  fi
  if ! "$python" -m venv --clear "$venv"; then
    say "setup: $python cannot make a virtual environment. Debian, Ubuntu: apt-get install python3-venv"
    exit 1
  fi
fi

# 2. The packages, at the versions of constraints.txt.
say "setup: installing the pinned packages into $venv (about 600 MB are downloaded the first time) ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@" -e ".[$extras]"

# 3. Two system libraries that OpenCV loads; a slim image has neither.
works() { "$venv/bin/python" -c 'import cv2' 2>/dev/null; }
if ! works; then
  as_root=
  if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
  say "setup: OpenCV needs the system libraries libGL.so.1 and libgthread-2.0.so.0; trying to install them ..."
  if command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libgl1 libglib2.0-0 >&2
  fi
  if ! works; then
    say "setup: OpenCV still cannot be imported:"
    "$venv/bin/python" -c 'import cv2' 2>&1 | tail -n 1 >&2 || true
    say "       Debian, Ubuntu: apt-get install libgl1 libglib2.0-0.  Fedora: dnf install mesa-libGL glib2.  Then: make setup"
    exit 1
  fi
fi

# 4. The field's kernels become machine code once, here, and not in somebody's first reconstruction (half a minute).
if "$venv/bin/python" -c 'import numba' 2>/dev/null; then
  say "setup: compiling the kernels for this processor ..."
  "$venv/bin/python" -m mononphm_core.model.compiled.prepare >&2 || say "setup: that failed; everything works without them, slower"
fi

# 5. For tests alone, and only where npm is: Khronos' validator of glTF files and a checker of accessibility. Skipped without.
for place in gltf:gltf-validator browser:axe-core; do
  folder=tests/${place%%:*} package=${place##*:}
  if command -v npm >/dev/null && [ -f "$folder/package-lock.json" ] && [ ! -d "$folder/node_modules/$package" ]; then
    npm ci --prefix "$folder" --silent --no-audit --no-fund >&2 || say "setup: npm could not fetch $package: its tests skip"
  fi
done

# 6. For tests alone: a browser for the page. Nothing is installed unasked; its tests are skipped without it.
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  say "setup: no Chromium here, so the browser tests skip. Debian, Ubuntu: apt-get install chromium"
fi

# 7. For tests alone, and only in continuous integration: the servers that some tests run for real. Elsewhere they are
#    used where they are installed, and their tests are skipped where they are not.
if [ -n "${CI:-}" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  missing=
  command -v redis-server >/dev/null || missing="$missing redis-server"
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
  command -v promtool >/dev/null || missing="$missing prometheus"
  if [ -n "$missing" ]; then
    say "setup: installing$missing for the tests ..."
    # shellcheck disable=SC2086
    { timeout 120 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq -y --no-install-recommends $missing; } \
      >/dev/null 2>&1 || say "setup: they could not be installed: the tests that need them skip"
  fi
fi
say "setup: ready. Next: make demo"
