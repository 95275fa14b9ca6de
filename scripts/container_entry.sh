#!/bin/sh
# First process of both images: hands secrets from their files to the libraries that want them in the environment, lays out
# the kernels, then becomes the command.
set -eu

# NAME_FILE -> NAME, for secrets that a library reads from the environment alone.
for name in PGPASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
  fi
done

# The root is read-only and numba wants a folder that it can write: the image's machine code is copied to the tmpfs.
# MONONPHM_PREPARE_KERNELS=1 (no GPU) compiles it again where this processor is another one than the image's.
if [ -d /opt/kernels ]; then
  mkdir -p /tmp/kernels
  cp -R /opt/kernels/. /tmp/kernels/
  export NUMBA_CACHE_DIR=/tmp/kernels
  if [ "${MONONPHM_PREPARE_KERNELS:-0}" = 1 ]; then
    python -m mononphm_core.model.compiled.prepare || echo "container: no kernels for this processor; slower without" >&2
  fi
fi
exec "$@"
