"""The API under load: how fast it answers, how fast it receives, and what it keeps.

    python benchmarks/api.py --out benchmarks/results [--only latency|throughput|memory|cancel|soak] [--jobs 2000]

latency      status requests while a reconstruction runs and eight uploads stream; the event loop's own lag
throughput   uploads against a bare ASGI application that writes and fsyncs, in turns
memory       eight parallel uploads; the API's resident memory
cancel       a running reconstruction, until the device is free
soak         many tiny jobs, one after the other; memory and file descriptors of API and worker

Every process is a real one with its default settings. The senders of uploads run at niceness 15: real ones are other
machines, and take no processor from the server. Results: api.json and api.md.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.service.beside import worker_beside  # noqa: E402
from tests.service.files import MULTIPART, multipart, png  # noqa: E402
from tests.service.test_process import Api, unfinished, until  # noqa: E402

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
STREAMS = 8
SENDERS_NICE = 15
SINK = """
import os, sys, uvicorn
async def sink(scope, receive, send):
    descriptor, more = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), True
    while more:
        message = await receive()
        os.write(descriptor, message.get("body", b""))
        more = message.get("more_body", False)
    os.fsync(descriptor)
    os.close(descriptor)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
uvicorn.run(sink, port=int(sys.argv[2]), http="h11", ws="none", lifespan="off", access_log=False, log_level="error")
"""


@contextmanager
def service(folder: Path, pipeline: str | None = None) -> Iterator[tuple[Api, subprocess.Popen[bytes] | None]]:
    """A real API, and a real worker if there is a pipeline: "" is the product's own."""
    api = Api(folder, MONONPHM_FREE_SPACE_RESERVE_BYTES="0", MONONPHM_MAX_QUEUED="100000")
    try:
        if pipeline is None:
            yield api, None
            return
        with worker_beside(api, pipeline or None) as worker:
            yield api, worker
    finally:
        api.stop()


def pieces(mib: int) -> Iterator[bytes]:
    """So many bytes that begin like a picture, a mebibyte at a time."""
    block = bytes(MIB)
    yield png().ljust(MIB, b"\7")
    for _ in range(mib - 1):
        yield block


def send_resumable(url: str, mib: int) -> str:
    """One upload by tus in one PATCH; its address."""
    begun = httpx.post(f"{url}/uploads", headers={**TUS, "Upload-Length": str(mib * MIB)}).raise_for_status()
    address = url + begun.headers["location"].removeprefix(url)
    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    headers["Content-Length"] = str(mib * MIB)
    httpx.patch(address, content=pieces(mib), headers=headers, timeout=600).raise_for_status()
    return address


def send_multipart(url: str, mib: int) -> None:
    """One upload as a form; it is hashed on the way."""
    opening, closing = multipart([("file", "a.png", b"@@")]).split(b"@@")

    def body() -> Iterator[bytes]:
        yield opening
        yield from pieces(mib)
        yield closing

    length = {"Content-Length": str(len(opening) + mib * MIB + len(closing))}
    httpx.post(f"{url}/reconstructions", content=body(), headers=MULTIPART | length, timeout=600).raise_for_status()


def upload_at_once(count: int, mib: int, url: str, nice: int = 0) -> None:
    """So many uploads at the same time, each removed as soon as it is complete."""
    os.nice(nice)

    def one() -> None:
        httpx.delete(send_resumable(url, mib), headers=TUS, timeout=60)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def uploading(mib: int, url: str) -> BaseProcess:
    """Eight uploads from a process of their own, so that they cannot slow the clock that watches."""
    process = multiprocessing.get_context("spawn").Process(
        target=upload_at_once, args=(STREAMS, mib, url, SENDERS_NICE)
    )
    process.start()
    return process


def upload_for_ever(mib: int, url: str) -> None:
    """Eight uploads, and eight more."""
    os.nice(SENDERS_NICE)
    while True:
        upload_at_once(STREAMS, mib, url)


@contextmanager
def streaming(mib: int, api: Api) -> Iterator[None]:
    """Eight uploads are on their way while the block runs."""
    process = multiprocessing.get_context("spawn").Process(target=upload_for_ever, args=(mib, api.url))
    process.start()
    try:
        until(lambda: gauges(api)["uploads_running"] == STREAMS, 60)
        yield
    finally:
        process.kill()
        process.join()


def gauges(api: Api) -> dict[str, float]:
    """The API's own figures, by name and labels."""
    lines = httpx.get(f"{api.url}/metrics", timeout=60).text.splitlines()
    pairs = (line.removeprefix("mononphm_").rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def answers(path: str, seconds: float) -> tuple[list[float], set[str]]:
    """How long each GET of a job took, one every 50 ms, and the states it was in."""
    times, states = [], set()
    end = time.monotonic() + seconds
    with httpx.Client(timeout=60) as http:
        while time.monotonic() < end:
            began = time.perf_counter()
            states.add(http.get(path).json()["state"])
            times.append(time.perf_counter() - began)
            time.sleep(0.05)
    return times, states


def latency(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Status requests and the loop's lag of the last minute: beside a reconstruction, and beside a reconstruction and
    eight uploads."""
    clip, found = ROOT / "examples" / "sample.mp4", {}
    with service(folder, "") as (api, _):
        with clip.open("rb") as file:
            job = httpx.post(f"{api.url}/reconstructions", files={"file": file}, timeout=60).json()
        path = f"{api.url}/reconstructions/{job['id']}"
        until(lambda: httpx.get(path).json()["progress"]["percent"] > 0, 120)
        found |= told("computing", api, *answers(path, given.seconds))
        with streaming(given.mib, api):
            found |= told("computing_and_uploads", api, *answers(path, given.seconds))
    return found


def told(when: str, api: Api, times: list[float], states: set[str]) -> dict[str, Any]:
    """The figures of one phase, which lasted as long as the loop's lag is remembered."""
    lag = gauges(api)
    return {
        f"{when}_requests": len(times), f"{when}_states": " ".join(sorted(states)),
        f"{when}_status_p50_ms": 1e3 * quantile(times, 0.5), f"{when}_status_p99_ms": 1e3 * quantile(times, 0.99),
        f"{when}_loop_lag_p50_ms": 1e3 * lag['event_loop_lag_seconds{quantile="0.5"}'],
        f"{when}_loop_lag_p99_ms": 1e3 * lag['event_loop_lag_seconds{quantile="0.99"}'],
    }  # fmt: skip


def throughput(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """MiB/s of three receivers in turns; shares are medians of the ratios within one turn."""
    mib, port = min(given.mib, 512), 1024 + os.getpid() % 40000
    sink = subprocess.Popen([sys.executable, "-c", SINK, str(folder / "sink.bin"), str(port)])
    rates: dict[str, list[float]] = {"sink": [], "tus": [], "multipart": []}
    try:
        with service(folder) as (api, _):
            until(lambda: _listens(port))

            def to_sink() -> None:
                length = {"Content-Length": str(mib * MIB)}
                httpx.put(f"http://127.0.0.1:{port}", content=pieces(mib), headers=length, timeout=600)

            def by_tus() -> None:
                httpx.delete(send_resumable(api.url, mib), headers=TUS)

            for _ in range(given.turns):
                for name, send in (
                    ("sink", to_sink), ("tus", by_tus), ("multipart", lambda: send_multipart(api.url, mib)),
                ):  # fmt: skip
                    began = time.perf_counter()
                    send()
                    rates[name].append(mib / (time.perf_counter() - began))
    finally:
        sink.kill()
        sink.wait()
    share = {
        name: statistics.median(a / b for a, b in zip(rates[name], rates["sink"], strict=True))
        for name in ("tus", "multipart")
    }
    return {
        "mib": mib, "turns": given.turns,
        "sink_mib_s": statistics.median(rates["sink"]), "tus_of_sink": share["tus"],
        "multipart_of_sink": share["multipart"], "rates": rates,
    }  # fmt: skip


def memory(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of the API, watched while eight uploads stream."""
    with service(folder) as (api, _):
        process = psutil.Process(api.process.pid)
        upload_at_once(STREAMS, 1, api.url)  # what every first request loads
        before = highest = process.memory_info().rss
        uploads = uploading(given.mib, api.url)
        while uploads.is_alive():
            highest = max(highest, process.memory_info().rss)
            time.sleep(0.02)
    return {"mib_each": given.mib, "before_mib": before / MIB, "growth_mib": (highest - before) / MIB}


def soak(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Tiny jobs through API, hints, worker and child; memory and descriptors every tenth of the way."""
    rows = []
    with service(folder, "tests.chaos.pipeline:run") as (api, worker):
        assert worker is not None
        watched = {"api": psutil.Process(api.process.pid), "worker": psutil.Process(worker.pid)}
        done = 0
        with httpx.Client(base_url=api.url, timeout=60) as http:
            while done < given.jobs:
                for _ in range(given.jobs // 10):
                    files = {"file": ("a.png", png(seed=done), "image/png")}
                    http.post("/reconstructions", files=files).raise_for_status()
                    done += 1
                    until(lambda: unfinished(http) < 4, 600)
                until(lambda: unfinished(http) == 0, 600)
                rows.append(
                    {"jobs": done}
                    | {
                        f"{name}_{what}": value
                        for name, process in watched.items()
                        for what, value in (("mib", process.memory_info().rss / MIB), ("fds", process.num_fds()))
                    }
                )
            failed = len(http.get("/reconstructions", params={"state": "failed"}).json()["items"])
    return {"jobs": done, "failed": failed, "rows": rows}


def cancel(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the wish to `cancelled` (the device is free then), at random moments of real reconstructions."""
    chance, waits = random.Random(0), []
    clip = (ROOT / "examples" / "sample.mp4").read_bytes()
    with service(folder, "") as (api, _), httpx.Client(base_url=api.url, timeout=60) as http:
        for _ in range(given.cancels):
            job = http.post("/reconstructions", files={"file": ("a.mp4", clip, "video/mp4")}).json()
            path = f"/reconstructions/{job['id']}"
            until(lambda path=path: http.get(path).json()["state"] == "running", 180)
            time.sleep(chance.uniform(0.0, 12.0))
            began = time.perf_counter()
            http.post(f"{path}/cancel").raise_for_status()
            until(lambda path=path: http.get(path).json()["state"] == "cancelled", 60)
            waits.append(time.perf_counter() - began)
    return {
        "cancels": len(waits), "p50_s": quantile(waits, 0.5), "p99_s": quantile(waits, 0.99), "waits": waits,
    }  # fmt: skip


def _listens(port: int) -> bool:
    try:
        httpx.put(f"http://127.0.0.1:{port}", content=b"x")
    except httpx.TransportError:
        return False
    return True


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


PARTS = {"latency": latency, "throughput": throughput, "memory": memory, "cancel": cancel, "soak": soak}


def page(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = ["# The API under load", "", f"`{results['command']}`, {results['machine']}, {results['date']}.", ""]
    for name in PARTS:
        if name in results:
            plain = {key: value for key, value in results[name].items() if not isinstance(value, (dict, list))}
            lines += [f"## {name}", "", "| | |", "|---|---|"]
            lines += [
                f"| {key} | {value:.4g} |" if isinstance(value, float) else f"| {key} | {value} |"
                for key, value in plain.items()
            ]
            lines.append("")
            if rows := results[name].get("rows"):
                lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
                lines += ["| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |" for row in rows]
                lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of api.json and api.md")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--mib", type=int, default=1024, help="of each of the eight uploads")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase of `latency`")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cancels", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2000)
    given = parser.parse_args()
    kept = given.out / "api.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    results |= {
        "command": "python benchmarks/api.py " + " ".join(sys.argv[1:]),
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the start",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    for name in given.only or PARTS:
        with tempfile.TemporaryDirectory(prefix="api") as folder:
            results[name] = PARTS[name](Path(folder), given)
        print(name, json.dumps({k: v for k, v in results[name].items() if k not in ("rates", "waits")}, indent=1))
        kept.write_text(json.dumps(results, indent=1) + "\n")
        (given.out / "api.md").write_text(page(results))


if __name__ == "__main__":
    main()
