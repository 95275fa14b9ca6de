"""What readers paste. The curl and Python of README, quick start and cookbook run against a real server and worker, and
every `mononphm` line of any document is read by the command that it names."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import numpy as np
import pytest
from balls import ball_head, two_frames

from mononphm_cli import main
from mononphm_core.io import tables
from mononphm_core.io.head_files import animated_glb, neutral_glb
from mononphm_core.io.tables import ARKIT_52, Blendshapes
from tests.service.beside import worker_beside
from tests.service.test_process import Api, environment, until

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/quickstart.md", "docs/cookbook.md")
LOCAL = "http://127.0.0.1:8000"


def lines(page: str) -> list[str]:
    """The commands of a document's shell blocks, one a line."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [re.sub(r"\s+#\s.*$", "", line) for line in joined.splitlines() if line.strip()]


def talks(line: str) -> bool:
    """Whether a command needs the server."""
    return "curl " in line or "mononphm submit" in line or "mononphm export" in line


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every job delivers here: a ball in two frames, in the files that a head comes in."""
    folder, sequence = tmp_path_factory.mktemp("result"), two_frames()
    w2c = np.broadcast_to(np.eye(4), (2, 4, 4))
    (folder / "neutral.glb").write_bytes(neutral_glb(ball_head()))
    (folder / "animation.glb").write_bytes(animated_glb(ball_head(), sequence, w2c))
    tables.write_npz(folder / "identity.npz", tables.identity_arrays(sequence, np.zeros((65, 3))))
    arrays = tables.expression_arrays(sequence, ())
    tables.write_npz(folder / "expressions.npz", arrays)
    tables.write_json(folder / "expressions.json", tables.expressions_document(arrays))
    tables.write_json(folder / "cameras.json", tables.cameras_document(sequence, w2c))
    curves = Blendshapes(ARKIT_52, np.full((2, 52), 0.5, np.float32))
    tables.write_blendshapes(folder / "blendshapes.csv", curves, sequence)
    (folder / "roles.json").write_text(json.dumps({path.name: path.stem for path in sorted(folder.iterdir())}))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, result: Path) -> Iterator[Api]:
    api = Api(tmp_path_factory.mktemp("server"), MONONPHM_EVENT_POLL_S="0.05")
    try:
        with worker_beside(api, "copying_pipeline:run", COPIED_RESULT=str(result)):
            yield api
    finally:
        api.process.kill()
        api.process.wait()


class Reader:
    """A person at a shell in a folder with a clip: variables last from line to line, and every answer counts."""

    def __init__(self, folder: Path, api: Api) -> None:
        self.folder, self.api = folder, api
        self.said = ""
        for name in ("clip.mp4", "long.mp4"):
            shutil.copy(ROOT / "examples" / "sample.mp4", folder / name)
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)

    def types(self, line: str) -> None:
        """Run it. No exit code but 0, and no answer of the server but a success."""
        script = (
            'curl() { command curl -w "%{stderr}%{http_code}\\n" "$@"; }\n'
            f"touch variables; . ./variables; {line.replace(LOCAL, self.api.url)}\n"
            "for name in job other; do [ -z ${!name+x} ] || declare -p $name; done > variables\n"
        )
        path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, capture_output=True, text=True, timeout=240,
            env=environment(PATH=path, MONONPHM_SERVER=self.api.url),
        )  # fmt: skip
        self.said = done.stdout
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if "curl " in line:
            answers = re.findall(r"^\d{3}$", done.stderr, re.MULTILINE)
            assert answers and all(answer[0] == "2" for answer in answers), f"{line}\n{done.stdout}\n{done.stderr}"

    def job(self, name: str) -> dict[str, object]:
        """The job in a variable."""
        found = re.search(rf'{name}="(\w+)"', (self.folder / "variables").read_text())
        assert found
        answer: dict[str, object] = httpx.get(f"{self.api.url}/reconstructions/{found[1]}").json()
        return answer

    def waits_for(self, name: str, state: str) -> None:
        until(lambda: self.job(name)["state"] == state)


@pytest.fixture(scope="module")
def reader(server: Api, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"), server)


SUBMIT = f"curl -sS -F file=@clip.mp4 {LOCAL}/reconstructions"


@pytest.mark.slow
def test_the_shell_of_readme_quick_start_and_cookbook_works_from_top_to_bottom(reader):
    """In the order of the pages; where the text speaks of another clip or of a job that still runs, there is one."""
    if shutil.which("curl") is None or shutil.which("jq") is None:
        pytest.skip("the lines need curl and jq; Debian, Ubuntu: apt-get install curl jq")
    done = 0
    for line in (line for page in PAGES for line in lines(page) if talks(line)):
        if "$other" in line:
            reader.types(f"other=$({SUBMIT} | jq -r .id)")
            reader.waits_for("other", "succeeded")
        elif line.endswith('/cancel"'):
            reader.types(f"job=$({SUBMIT} | jq -r .id)")
        elif line.endswith('/retry"'):
            reader.waits_for("job", "cancelled")
        if "mononphm export" in line and not has_usd():
            line = line.replace(" --usd", " --obj")
        reader.types(line)
        done += 1
        if "/events" in line:
            assert reader.job("job")["state"] == "succeeded" and "event: progress" in reader.said
        elif "etag" in line:
            assert re.search(r'"[0-9a-f]{64}"', reader.said)
        elif "format=csv" in line:
            assert reader.said.startswith("frame_index,timestamp_s,browDownLeft")
    assert done >= 16
    assert (reader.folder / "out" / "obj" / "frame_00003.obj").is_file()


def has_usd() -> bool:
    try:
        import pxr  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.slow
def test_the_python_of_the_cookbook_works(server, reader, monkeypatch):
    """Submit, poll, download: as pasted, but for the address."""
    text = (ROOT / "docs" / "cookbook.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(reader.folder)
    exec(compile(block.replace(LOCAL, server.url), "cookbook.md", "exec"), {})
    assert (reader.folder / "head.glb").read_bytes()[:4] == b"glTF"


def commands() -> list[str]:
    """Every line of a document that calls our program."""
    pages = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    found = [line for page in pages for line in lines(page)]
    return sorted({line for line in found if re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?mononphm ", line)})


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_is_one_that_the_program_takes(line, tmp_path, monkeypatch):
    """Names of commands and options, kinds of values: read by the commands' own parsers, not run."""
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "long.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "sample.mp4", tmp_path / "examples")
    for name in ("out", "out/a", "out/b"):
        (tmp_path / name).mkdir()
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line))[1:]
    command: click.Command = main.cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None
        command, words = found, words[1:]
    command.make_context(command.name, words)


def test_every_target_and_script_in_the_documents_exists():
    """`make demo INPUT=…` and `python scripts/…` of the quick start."""
    targets = (ROOT / "Makefile").read_text("utf-8")
    for page in PAGES:
        for line in lines(page):
            if line.startswith("make "):
                assert re.search(rf"^{line.split()[1]}:", targets, re.MULTILINE), line
            for script in re.findall(r"scripts/\w+\.py", line):
                assert (ROOT / script).is_file()
