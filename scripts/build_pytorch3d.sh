#!/usr/bin/env bash
# build_pytorch3d.sh TAG FOLDER: wheels of pytorch3d at a source tag, and of what it imports, for the environment in /opt/venv.
set -euo pipefail
tag=$1 folder=$2
apt-get update
apt-get install -y --no-install-recommends git g++ ninja-build python3.12 python3.12-dev
git clone --quiet --depth 1 --branch "$tag" https://github.com/facebookresearch/pytorch3d /tmp/pytorch3d
/opt/venv/bin/pip install --no-cache-dir wheel==0.46.3 iopath==0.1.10 portalocker==3.2.0 tqdm==4.67.1
/opt/venv/bin/pip wheel --no-build-isolation --no-deps -w "$folder" /tmp/pytorch3d iopath==0.1.10 portalocker==3.2.0 tqdm==4.67.1
