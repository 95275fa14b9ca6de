"""`make fuzz`, third part: hostile uploads to a real API with a real worker, by form and by tus, from several clients.

    python -m tests.fuzz.uploads --seconds 1800 --most 5000 --out benchmarks/results

Hand-made harm and mutants of good files of every format, under names and declared types that mean harm, too. Each gets
an answer of the document within 30 s; each accepted one ends; API and worker live on as the processes that they were;
decoders stay within their memory; and when all jobs are deleted no file is left and nothing was written elsewhere.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.fuzz import record
from tests.fuzz.decode_only import LIMITS
from tests.fuzz.decoder import MUTATIONS, corpus
from tests.hostile import files
from tests.service.beside import worker_beside
from tests.service.test_process import Api, unfinished, until

CLIENTS = 4
LONGEST_S = 30.0
EXPECTED = {202, 413, 415, 422}
INPUT_CODES = {
    "unreadable_media",
    "unsupported_media",
    "media_too_large",
    "media_too_small",
    "out_of_memory",
    "time_limit",
}
TUS = {"Tus-Resumable": "1.0.0"}
NAMES = (
    "a.mp4", "../../../../tmp/owned", "..\\..\\owned.png", "/etc/passwd", "C:\\windows\\owned.png", "a\x00.png", ".",
    "..", "", "con", "-rf", "$(id).mp4", "a;rm -rf ~.png", "a\r\nX-Owned: 1", '"><script>alert(1)</script>.png',
    "\u202egnp.exe", "%2e%2e%2fowned", "名前 ∅ 😀.jpg", "x" * 3000,
)  # fmt: skip


@dataclass
class Tally:
    """What the uploads gave."""

    uploads: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Broken promises, in words."""
    longest_answer_s: float = 0.0
    decoder_peak_mib: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def hand_made() -> dict[str, bytes]:
    """Harm that somebody thought of."""
    return {
        "nothing": b"", "text": b"hello\n" * 700, "svg": b"<?xml version='1.0'?><svg onload='alert(1)'/>",
        "html": b"<html><script>alert(1)</script>", "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "zip": files.zip_with_escape(),
        "dash": b"<?xml version='1.0'?><MPD><Period><BaseURL>http://127.0.0.1/</BaseURL></Period></MPD>",
        "spoofed": b"\x89PNG\r\n\x1a\n<html>", "bomb": files.png_declaring(30000, 30000),
        "sliver": files.png_declaring(3, 5000), "liar": files.png_declaring(1500, 1500, 8),
        "noise in mp4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + np.random.default_rng(0).bytes(50000),
        "noise in webm": b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm" + np.random.default_rng(0).bytes(50000),
        "elf": b"\x7fELF" + bytes(500), "pickle": b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR.",
        "exr": b"v/1\x01\x02\0\0\0" + bytes(300), "ps": b"%!PS\n(/etc/passwd) run\n", "pdf": b"%PDF-1.4\n" + bytes(99),
        "mvg": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\n",
    }  # fmt: skip


class Attack:
    """Clients against one API and one worker."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tally = Tally()
        self._folder, self._seed = folder, seed
        (folder / "good").mkdir()
        self._good = corpus(folder / "good")
        self._harm = hand_made()
        self.api = Api(folder, MONONPHM_FREE_SPACE_RESERVE_BYTES="0", MONONPHM_MAX_QUEUED="1000000")
        self._things = ExitStack()
        self._things.callback(self._end_api)
        self.worker = self._things.enter_context(worker_beside(self.api, "tests.fuzz.decode_only:run"))

    def rage(self, seconds: float, most: int) -> None:
        """Upload until the time or the number is used up."""
        end = time.monotonic() + seconds
        watching = threading.Event()
        watcher = threading.Thread(target=self._watch_decoders, args=(watching,))
        watcher.start()
        clients = [threading.Thread(target=self._client, args=(n, end, most)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self._judge()
        watching.set()
        watcher.join()

    def stop(self) -> None:
        """End the processes."""
        self._things.close()

    def _end_api(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.api.stop()
        self.api.process.kill()
        self.api.process.wait()

    def _client(self, number: int, end: float, most: int) -> None:
        rng = np.random.default_rng([self._seed, number])
        with httpx.Client(base_url=self.api.url, timeout=2 * LONGEST_S) as http:
            while time.monotonic() < end:
                with self.tally.lock:
                    if self.tally.uploads >= most:
                        return
                    self.tally.uploads += 1
                said, content = self._drawn(rng)
                name, kind = NAMES[rng.integers(len(NAMES))], ("video/mp4", "image/png", "x/y", "")[rng.integers(4)]
                began = time.monotonic()
                try:
                    answer = (self._by_tus if rng.random() < 0.2 else _by_form)(http, content, name, kind)
                except httpx.HTTPError as error:
                    self._note(f"{said} as {name[:40]!r}: {type(error).__name__}", time.monotonic() - began)
                    continue
                wrong = answer.status_code not in EXPECTED
                took = time.monotonic() - began
                self._note(f"{said} as {name[:40]!r}: {answer.status_code} {answer.text[:200]}" if wrong else "", took)
                code = "" if answer.status_code == 202 else str(answer.json().get("code"))
                with self.tally.lock:
                    self.tally.answers[f"{answer.status_code} {code}".strip()] += 1

    def _drawn(self, rng: np.random.Generator) -> tuple[str, bytes]:
        if rng.random() < 0.15:
            said = sorted(self._harm)[rng.integers(len(self._harm))]
            return said, self._harm[said]
        said = sorted(self._good)[rng.integers(len(self._good))]
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        return f"{said}, {mutation.__name__}", mutation(np.frombuffer(self._good[said], np.uint8), rng).tobytes()

    def _by_tus(self, http: httpx.Client, content: bytes, name: str, kind: str) -> httpx.Response:
        begun = http.post("/uploads", headers={**TUS, "Upload-Length": str(len(content))})
        if begun.status_code != 201:
            return begun
        where = begun.headers["location"]
        headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        sent = http.patch(where, content=content, headers=headers)
        if sent.status_code != 204:
            return sent
        answer = http.post("/reconstructions", json={"upload_id": where.rsplit("/", 1)[1]})
        if answer.status_code != 202:
            http.delete(where, headers=TUS)
        return answer

    def _note(self, broken: str, took: float) -> None:
        with self.tally.lock:
            self.tally.longest_answer_s = max(self.tally.longest_answer_s, took)
            if broken:
                self.tally.broken.append(broken)
            if took > LONGEST_S:
                self.tally.broken.append(f"an answer took {took:.0f} s")

    def _watch_decoders(self, stop: threading.Event) -> None:
        """Resident memory of every decoder that is met."""
        worker = psutil.Process(self.worker.pid)
        while not stop.wait(0.05):
            with suppress(psutil.Error):
                for process in worker.children(recursive=True):
                    with suppress(psutil.Error):
                        if any("decoder_child" in word for word in process.cmdline()):
                            peak = process.memory_info().rss / (1 << 20)
                            self.tally.decoder_peak_mib = max(self.tally.decoder_peak_mib, peak)

    def _judge(self) -> None:
        """All jobs end; then everything is deleted, and nothing may be left."""
        tally = self.tally
        with httpx.Client(base_url=self.api.url, timeout=2 * LONGEST_S) as http:
            until(lambda: not unfinished(http), 1200)
            while items := http.get("/reconstructions", params={"limit": 200}).json()["items"]:
                for job in items:
                    self._judge_job(job)
                    http.delete(f"/reconstructions/{job['id']}").raise_for_status()
        for process, name in ((self.api.process, "API"), (self.worker, "worker")):
            if process.poll() is not None:
                tally.broken.append(f"the {name} died")
        if tally.decoder_peak_mib > LIMITS.decode_memory_bytes / (1 << 20):
            tally.broken.append(f"a decoder took {tally.decoder_peak_mib:.0f} MiB")
        kept = ("inputs", "artifacts", "staging", "uploads")
        tally.broken += [
            f"left behind: {path}" for room in kept for path in (self.api.data / room).rglob("*") if path.is_file()
        ]
        expected = {"good", "data", "api.log", "worker.log"}
        tally.broken += [f"written elsewhere: {path}" for path in self._folder.iterdir() if path.name not in expected]
        tally.broken += [f"written elsewhere: {path}" for path in _owned()]

    def _judge_job(self, job: dict[str, Any]) -> None:
        code = job["error"]["code"] if job["error"] else ""
        self.tally.endings[f"{job['state']} {code}".strip()] += 1
        if job["state"] != "succeeded" and code not in INPUT_CODES:
            self.tally.broken.append(f"a job ended as {job['state']} {job['error']}")
        if "/" in job["input"]["filename"] or "\x00" in job["input"]["filename"]:
            self.tally.broken.append(f"a file name was kept as {job['input']['filename']!r}")


def _by_form(http: httpx.Client, content: bytes, name: str, kind: str) -> httpx.Response:
    return http.post("/reconstructions", files={"file": (name, content, kind) if kind else (name, content)})


def _owned() -> list[Path]:
    return [path for folder in (Path("/tmp"), Path("/"), Path.home()) for path in folder.glob("owned*")]


def row_of(tally: Tally, seconds: float) -> record.Row:
    """The run in numbers."""
    return {
        **record.run_of("tests.fuzz.uploads", seconds),
        "uploads": tally.uploads, **tally.answers, **{f"job {ending}": n for ending, n in tally.endings.items()},
        "longest_answer_s": tally.longest_answer_s, "largest_decoder_mib": tally.decoder_peak_mib,
        "broken promises": len(tally.broken),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of hostile_uploads.json and .md, to which the run is added")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        attack = Attack(Path(name), given.seed)
        try:
            attack.rage(given.seconds, given.most)
        finally:
            attack.stop()
    row = row_of(attack.tally, time.monotonic() - began)
    print(json.dumps(row, indent=1))
    print(json.dumps(attack.tally.broken[:50], indent=1))
    if given.out:
        record.keep(given.out, "hostile_uploads", "Hostile uploads", row)
    return 1 if attack.tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
