"""`mononphm doctor`: what works on this machine, and what to do about what does not."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from mononphm_cli.options import json_option

ROOM_FOR_A_JOB = 2 << 30
"""Bytes: an upload, its decoded frames and its artifacts."""

PROBE_SECONDS = 120.0

OK: Literal["ok"] = "ok"
WARN: Literal["warn"] = "warn"
FAIL: Literal["fail"] = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fail` means that the main job (a clip in, meshes out) cannot run."""

    name: str
    state: Literal["ok", "warn", "fail"]
    said: str
    next_step: str = ""


STORE_PATIENCE_S = 10.0

Check = Callable[[], Finding]


@click.command("doctor")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="The server's data directory.")
@json_option
def command(data_dir: Path | None, as_json: bool) -> int:
    """Say what works on this machine: device, faces, codecs, models, broker, database, storage, free disk.

    Exit code 1 if the main job cannot run here.
    """
    findings: list[Finding] = []
    for finding in examine(data_dir):
        findings.append(finding)
        if not as_json:
            show(finding)
    broken = [finding.name for finding in findings if finding.state == FAIL]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "checks": [asdict(finding) for finding in findings]}, indent=2))
    elif broken:
        click.echo(f"\nThe main job cannot run here: {', '.join(broken)}.")
    else:
        click.echo("\nReady: the main job can run here.")
    return 1 if broken else 0


def show(finding: Finding) -> None:
    """One line, and a second one with the way out."""
    colour = {OK: "green", WARN: "yellow", FAIL: "red"}[finding.state]
    click.echo(f"{click.style(finding.state.ljust(4), fg=colour)}  {finding.name:<9} {finding.said}")
    if finding.next_step and finding.state != OK:
        click.echo(f"{'':<16}{finding.next_step}")


def examine(data_dir: Path | None = None) -> Iterable[Finding]:
    """All checks in a fixed order; one that breaks is a finding as well."""
    checks: dict[str, Check] = {
        "python": check_python,
        "device": check_device,
        "faces": check_faces,
        "codecs": check_codecs,
        "models": check_models,
        "broker": lambda: check_broker(data_dir),
        "database": lambda: check_database(data_dir),
        "storage": lambda: check_storage(data_dir),
        "disk": lambda: check_disk(data_dir),
        "paths": check_paths,
    }
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {name: pool.submit(guarded, name, check) for name, check in checks.items()}
        for future in running.values():
            yield future.result()


def guarded(name: str, check: Check) -> Finding:
    """A check that raises has failed; its own words are the report."""
    try:
        return check()
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        return Finding(name, FAIL, said, "Run `make setup` (or `pip install 'mononphm[core,service,worker]'`) again.")


# ---- libraries and device -----------------------------------------------------------------------------------------


def check_python() -> Finding:
    """The versions for which all libraries have wheels."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding("python", OK if fits else FAIL, version, "Use Python 3.11 or 3.12: make setup PYTHON=python3.11")


def check_device() -> Finding:
    """Where the tensors will live."""
    facts = probe("torch")
    if facts["device"] == "cuda":
        return Finding("device", OK, f"{facts['name']}, {facts['free_gb']} of {facts['gb']} GB free")
    return Finding("device", OK, f"CPU, {facts['threads']} threads (no CUDA device), torch {facts['version']}")


def check_faces() -> Finding:
    """The face library and OpenCV."""
    facts = probe("faces")
    return Finding("faces", OK, f"mediapipe {facts['mediapipe']}, OpenCV {facts['opencv']}")


def check_codecs() -> Finding:
    """A clip written and read back."""
    facts = probe("codecs")
    said = f"{facts['tried']} clip read back; decoders: {', '.join(facts['decoders'])}"
    if facts["missing"]:
        missing = ", ".join(facts["missing"])
        return Finding("codecs", WARN, f"{said}; missing: {missing}", "Clips in the missing formats will be refused.")
    return Finding("codecs", OK, said)


def probe(name: str) -> dict[str, Any]:
    """Run one probe of mononphm_cli.probes in a process of its own. RuntimeError with its last words if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "mononphm_cli.probes", name],
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"ended with code {done.returncode} and no word")
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def check_models() -> Finding:
    """At least one head prior whose bytes are the registered ones."""
    from mononphm_core.errors import ChecksumMismatch
    from mononphm_core.io import registry
    from worker import models

    cards = models.installed()
    if not cards:
        return Finding("models", FAIL, "no model is installed", "Train one with `mononphm train`, or add one.")
    altered = []
    for card in cards:
        try:
            registry.verify(card)
        except ChecksumMismatch:
            altered.append(card.name)
    names = ", ".join(f"{card.name} {card.version}" for card in cards)
    if altered:
        state = FAIL if len(altered) == len(cards) else WARN
        return Finding(
            "models",
            state,
            f"altered: {', '.join(altered)}",
            "Restore the weight files (git checkout), or add the model again.",
        )
    return Finding("models", OK, f"{names}, checksums as registered")


# ---- service ------------------------------------------------------------------------------------------------------


def check_broker(data_dir: Path | None) -> Finding:
    """Which transport carries the hints, and that it takes a connection."""
    from kombu.connection import Connection

    from worker.ledger.broker import configured_broker, find_redis_server
    from worker.settings import WorkerSettings

    url = WorkerSettings().broker_url
    with tempfile.TemporaryDirectory() as folder:
        broker = configured_broker(url, Path(folder))
        if url:
            with Connection(broker.url, transport_options=broker.transport_options, connect_timeout=5) as connection:
                try:
                    connection.ensure_connection(max_retries=1, timeout=5)
                except Exception as error:
                    return Finding(
                        "broker",
                        FAIL,
                        f"{broker.said} does not answer ({type(error).__name__})",
                        "Start it, or unset MONONPHM_BROKER_URL: the embedded default needs no server.",
                    )
            return Finding("broker", OK, f"{broker.said} answers")
        redis = find_redis_server()
        return Finding("broker", OK, f"`mononphm up` will start {redis}" if redis else broker.said)


def check_database(data_dir: Path | None) -> Finding:
    """The configured database answers; the embedded one can be written durably."""
    import sqlalchemy

    from worker.ledger import database
    from worker.settings import WorkerSettings

    url = WorkerSettings().database_url
    with tempfile.TemporaryDirectory(dir=_existing(data_dir or WorkerSettings().data_dir)) as folder:
        engine = database.make_engine(url or database.default_url(Path(folder)))
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
                if url is None:
                    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
                    return Finding("database", OK, f"SQLite {_sqlite_version()}, journal {mode}, in the data directory")
            revision = database.current_revision(engine)
        except sqlalchemy.exc.SQLAlchemyError as error:
            first = str(error).splitlines()[0][:200]
            return Finding("database", FAIL, first, "Start it, or correct MONONPHM_DATABASE_URL.")
        finally:
            engine.dispose()
    name = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    return Finding("database", OK, f"{name}, schema {revision or 'not made yet'}")


def check_storage(data_dir: Path | None) -> Finding:
    """The data directory takes a file and gives it back; so does the object store, where there is one."""
    from worker.ledger.store_settings import StoreSettings
    from worker.settings import WorkerSettings

    wanted = data_dir or WorkerSettings().data_dir
    folder = _existing(wanted)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"probe")
            file.flush()
            assert Path(file.name).read_bytes() == b"probe", "another content came back"
    except OSError as error:
        return Finding("storage", FAIL, f"{folder}: {error.strerror}", "Choose another: --data-dir DIR.")
    url = StoreSettings().url
    return check_objects(url, folder) if url else Finding("storage", OK, f"{wanted} can be written")


def check_objects(url: str, folder: Path) -> Finding:
    """The object store takes a file in parts, gives it back and removes it."""
    from mononphm_core.errors import ConfigError
    from worker.ledger.errors import LedgerError
    from worker.ledger.store_settings import configured_storage

    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            storage = configured_storage(Path(scratch), patience_s=STORE_PATIENCE_S)
            from worker.ledger.objects import ObjectStorage

            assert isinstance(storage, ObjectStorage)
            storage.try_out()
    except (ConfigError, LedgerError, OSError) as error:
        step = "Correct MONONPHM_STORAGE_… (docs/service.md, Object storage)."
        return Finding("storage", FAIL, f"{url}: {error}"[:300], step)
    return Finding("storage", OK, f"{url} takes files, gives them back and removes them")


def check_disk(data_dir: Path | None) -> Finding:
    """Room for at least one job."""
    from worker.settings import WorkerSettings

    free = shutil.disk_usage(_existing(data_dir or WorkerSettings().data_dir)).free
    said = f"{free / 1e9:.1f} GB free"
    if free < ROOM_FOR_A_JOB:
        return Finding("disk", FAIL, said, f"Make room: a job may need {ROOM_FOR_A_JOB / 1e9:.0f} GB.")
    return Finding("disk", OK, said)


def check_paths() -> Finding:
    """The six folders of the published code, where they are set; all optional."""
    from worker.ledger.places import PUBLISHED, Places

    places = Places()
    found = {f"MONONPHM_{name.upper()}": folder for name in PUBLISHED if (folder := getattr(places, name)) is not None}
    if not found:
        return Finding("paths", OK, "none of the published code's six is set, and none is needed")
    absent = [name for name, folder in found.items() if not folder.is_dir()]
    said = ", ".join(f"{name}={folder}" for name, folder in found.items())
    step = f"No such folder: {', '.join(absent)}. Correct the environment or ~/.config/mononphm/.env."
    return Finding("paths", WARN if absent else OK, said, step)


def _existing(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version
