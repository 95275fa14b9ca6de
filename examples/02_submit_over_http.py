"""The HTTP interface with nothing but httpx: submit, follow, download, verify.

.venv/bin/mononphm up                                                   # in another terminal
.venv/bin/python examples/02_submit_over_http.py clip.mp4 [SERVER] [FOLDER]
"""

import hashlib
import json
import sys
import time
import uuid
from pathlib import Path

import httpx

clip = Path(sys.argv[1])
server = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000"
folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path("out")

with httpx.Client(base_url=server, timeout=60) as http:
    with clip.open("rb") as file:
        reply = http.post(
            "/reconstructions",
            files={"file": (clip.name, file)},
            data={"options": json.dumps({"quality": "draft", "max_frames": 4})},
            headers={"Idempotency-Key": str(uuid.uuid4())},  # sent again, the same key finds the same job
        )
    if reply.status_code != 202:
        sys.exit(f"{reply.status_code}: {reply.json()['detail']}")
    job = reply.json()
    print(f"{reply.status_code}, {reply.headers['Location']}")

    while job["state"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = http.get(f"/reconstructions/{job['id']}").raise_for_status().json()
        print(f"{job['progress']['percent']:3.0f} %  {job['state']}  {job['stage'] or ''}")
    if job["state"] != "succeeded":
        sys.exit(f"{job['state']}: {(job['error'] or {}).get('detail')}")

    for artifact in http.get(f"/reconstructions/{job['id']}/artifacts").json()["items"]:
        data = http.get(artifact["href"]).raise_for_status().content
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"], artifact["name"]
        path = folder / job["id"] / artifact["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{artifact['bytes']:>9} bytes  {path}")
