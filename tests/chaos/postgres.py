"""A private PostgreSQL from Debian's package: its own directory, a unix socket, no port."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Where Debian puts initdb and pg_ctl; the newest version."""
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def private_postgres() -> Iterator[str]:
    """The URL of an empty database, for as long as the block runs."""
    found = programs()
    assert found is not None, "install postgresql"
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a unix socket's path must be short
    data, log = folder / "data", folder / "log"
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")

    def run(program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(found / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("initdb", "-D", str(data), "-A", "trust", "-U", "mononphm", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses='' -k {folder} -c shared_buffers=32MB"
    run("pg_ctl", "-D", str(data), "-o", options, "-w", "-l", str(log), "start")
    try:
        yield f"postgresql+psycopg://mononphm@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
