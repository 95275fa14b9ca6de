"""A real pipeline, only tiny: the input file is a JSON script of what to do. The tests point the child at it."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

from mononphm_core import errors
from worker.ledger.records import PartSpec

LEAKED: list[bytes] = []


def prepare():
    """What a pipeline says of its default model; it may take a while to load."""
    time.sleep(float(os.environ.get("TINY_LOADS_S", "0")))
    return {"name": "tiny", "version": "1", "sha256": "0" * 64, "licence": "MIT"}


def run(order, workspace: Path, on_step):
    """Steps of `pause_s`; then write `result.bin`, or fail in the way that the script asks for.

    With `rounds` (how many parts in each) the work is divided; `parts` says by `<round>.<number>` what else they do.
    """
    script = json.loads(order.input_path.read_text())
    note(order, "begins")
    if order.part is None and (following := next_round(order, script.get("rounds", []))):
        note(order, "ends")
        return {"parts": [part.to_json() for part in following]}
    if order.part is not None:
        script |= script.get("parts", {}).get(f"{order.part.round}.{order.part.number}", {})
    misfortune = script.get("misfortune") if order.attempt <= script.get("misfortunes", 99) else None
    steps = script.get("steps", 3)
    if script.get("leak_mb"):
        LEAKED.append(b"x" * (script["leak_mb"] << 20))
    (workspace / "scratch").mkdir()
    (workspace / "scratch" / "half.tmp").write_text("not an artifact")
    for step in range(1, steps + 1):
        if misfortune and step > steps // 2:
            befall(misfortune)
        time.sleep(script.get("pause_s", 0.02))
        try:
            on_step(report("stage1", step, steps))
        except BaseException:
            if not script.get("deaf"):
                raise
    content = f"{order.sha256} {order.attempt}".encode()
    if "rounds" in script:
        content = composed(order)
    content += content * (script.get("bytes", 0) // len(content))
    (workspace / "result.bin").write_bytes(content)
    on_step(report("exporting", 1, 1))
    note(order, "ends")
    result = {
        "name": "result.bin",
        "role": "result",
        "media_type": "application/octet-stream",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest() if not script.get("lie") else "0" * 64,
    }
    manifest = {"model": prepare(), "warnings": script.get("warnings", []), "artifacts": [result]}
    (workspace / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def next_round(order, sizes: list[int]) -> list[PartSpec]:
    """The parts that are to be opened next; none where all rounds are done."""
    for number, size in enumerate(sizes, 1):
        done = [order.materials is not None and (order.materials / f"{number}.{n}").exists() for n in range(size)]
        if not all(done):
            needs = tuple((number - 1, n) for n in range(sizes[number - 2])) if number > 1 else ()
            first, last = 80.0 * (number - 1) / len(sizes), 80.0 * number / len(sizes)
            return [PartSpec(number, n, {}, needs, "stage1", (first, last), 10) for n in range(size)]
    return []


def composed(order) -> bytes:
    """What this is, and what it was made of: the same whoever made it, and whenever."""
    made_of = sorted(order.materials.glob("*/result.bin")) if order.materials else []
    place = f"{order.part.round}.{order.part.number}" if order.part else "whole"
    return b"|".join([f"{order.sha256} {place}".encode(), *(path.read_bytes() for path in made_of)])


def befall(misfortune: str) -> None:
    """The ways in which a process can go wrong."""
    print("a library prints into standard output", flush=True)
    if misfortune == "hang":
        time.sleep(600)
    elif misfortune == "exit":
        os._exit(3)
    elif misfortune.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, misfortune))
        time.sleep(600)
    elif misfortune == "bug":
        raise RuntimeError("cannot open /srv/secret/place/file.bin")
    else:
        raise getattr(errors, misfortune)("frame 3 of the clip")


def report(stage: str, step: int, total: int) -> SimpleNamespace:
    return SimpleNamespace(stage=stage, step=step, total=total, frames_done=step, frames_total=total, message="")


def note(order, what: str) -> None:
    """One line in a journal outside the system: the oracle of `exactly once`."""
    if journal := os.environ.get("TINY_JOURNAL"):
        with Path(journal).open("a") as file:
            file.write(f"{order.job_id} {order.attempt} {os.getpid()} {what}\n")
