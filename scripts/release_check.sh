#!/usr/bin/env bash
# release_check.sh VENV FOLDER: known vulnerabilities, licences and a bill of materials of what the images install. The tools
# get an environment of their own. Fails where a vulnerability is known or the tests of the locks fail.
set -euo pipefail
venv=$1 folder=$2
mkdir -p "$folder"
[ -x "$folder/tools/bin/pip" ] || "$venv/bin/python" -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0 pip-licenses==5.5.5

"$venv/bin/python" -m pytest -q tests/deploy tests/house/test_files.py
for image in service worker; do
  "$folder/tools/bin/cyclonedx-py" requirements "requirements/$image.lock" --of JSON -o "$folder/$image.cdx.json"
done
"$folder/tools/bin/pip-licenses" --python "$venv/bin/python" --order license --format markdown --output-file "$folder/licences.md"
for image in service worker; do
  "$folder/tools/bin/pip-audit" --strict --requirement "requirements/$image.lock" --disable-pip --require-hashes
done
echo "release-check: passed; $folder holds service.cdx.json, worker.cdx.json and licences.md"
