"""The tiny server as a process of its own, and `mononphm` as a function."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mononphm_cli import main


@dataclass
class TinyServer:
    url: str

    def faults(self, **faults: Any) -> None:
        """What goes wrong from now on."""
        httpx.post(f"{self.url}/_faults", json=faults)

    def seen(self, method: str, path: str) -> list[dict[str, Any]]:
        """The requests that arrived."""
        every = httpx.get(f"{self.url}/_seen").json()
        return [request for request in every if request["method"] == method and request["path"] == path]


@pytest.fixture
def server() -> Iterator[TinyServer]:
    script = Path(__file__).with_name("tiny_server.py")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield TinyServer(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.kill()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Some bytes: the tiny server does not look inside."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(range(256)) * 2000)
    return path


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def mononphm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run one command line in this process, as the installed command would."""

    def run(*arguments: object) -> Ran:
        code = main.run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run
