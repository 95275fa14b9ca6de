"""docs/published_commands.md: every line of its table is run, in its order, on small data that is made here."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from mononphm_cli import main
from tests.core.evaluation.test_kinect import sphere_depth
from tests.core.preprocessing.sequences import write_sequence
from tests.core.training.balls import small_document, write_scans

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT.parent / "shared" / "reference" / "PUBLISHED_README.md"
PAGE = (ROOT / "docs" / "published_commands.md").read_text(encoding="utf-8")
FEWER = "--iterations-scale 0.005 --mesh-resolution 16 --device cpu --threads 1"
ARTIFACTS = "--output manifest --output meshes --output cameras --output expressions"
SMALLER = {
    ("reconstruct",): f"{FEWER} {ARTIFACTS}",
    ("train", "supervision"): "--samples 1500 --others 200 --pairs 50 --files 1 --corresp-files 1",
    ("train", "published"): "--epochs 1 --device cpu",
}
"""What makes a command quick here without changing which it is."""


def table() -> list[tuple[str, str]]:
    """(published, ours) of every row."""
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1].strip().strip("`")) for row in rows if row[0].strip() != "published"]


def test_every_command_of_the_published_page_is_in_the_table():
    """Who comes from there finds the line that was typed there."""
    if not PUBLISHED.is_file():
        pytest.skip("the published page is not here")
    blocks = re.findall(r"^```\n?(.*?)```", PUBLISHED.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = {line.strip() for block in blocks for line in block.splitlines()}
    commands = {line for line in lines if line.startswith(("conda ", "pip ", "python ", "bash ", "cd "))}
    assert len(commands) >= 12
    known = " ".join(published for published, _ in table())
    for command in commands:
        assert f"`{command}`" in known, command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home with everything that the published code would have been given."""
    home = tmp_path_factory.mktemp("home")
    for name in ("tracking", "experiments", "supervision", "work"):
        (home / name).mkdir()
    write_scans(home / "scans", (3, 7))
    (home / "work" / "mononphm.yaml").write_text(yaml.safe_dump(small_document()))
    for name, frames in (("FFHQ_ID", 1), ("510_seq_4", 2)):
        sequence = write_sequence(home / "tracking" / name, frames=frames, width=121, height=121)
        (sequence / "kinect_intrinsics.txt").write_text("60.5 60.5 220 220")
    (home / "config").mkdir()
    return home


@pytest.fixture(scope="module")
def released(place, tmp_path_factory):
    """Stands for the downloaded checkpoint: a real one in the published layout, of a small model."""
    from mononphm_core.training.published.fields import FieldCounts
    from mononphm_core.training.published.loop import RunOptions, train
    from mononphm_core.training.published.scans import Assets, write_supervision

    data = tmp_path_factory.mktemp("data")
    assets = Assets.read(place / "scans" / "assets")
    write_supervision(place / "scans", assets, data, lambda s: True, FieldCounts(1500, 200, 200, 1), 50, 1)
    run = place / "experiments" / "mononphm_release"
    run.mkdir()
    import torch

    train(data, run, small_document(), RunOptions(4), torch.device("cpu"))
    last = run / "checkpoints" / "checkpoint_epoch_4.tar"
    last.rename(last.with_name("checkpoint_epoch_2500.tar"))  # the epoch of the release
    return run


@pytest.mark.slow
def test_every_line_of_the_table_works(place, released, monkeypatch, capfd):
    """In the table's order, since later lines use what earlier ones made."""
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "share"))
    (place / ".config" / "mononphm").mkdir(parents=True)
    paths = {
        "CODE_BASE": place / "code", "TRAINING_SUPERVISION": place / "supervision",
        "DATA": place / "scans", "EXPERIMENT_DIR": place / "experiments",
        "DATA_TRACKING": place / "tracking", "TRACKING_OUTPUT": place / "output",
    }  # fmt: skip
    lines = [f'MONONPHM_{name}="{path}"' for name, path in paths.items()]
    (place / ".config" / "mononphm" / ".env").write_text("\n".join(lines))
    monkeypatch.chdir(place / "work")
    done = set()
    for _, ours in table():
        if ours in done:
            continue
        done.add(ours)
        words = shlex.split(ours)
        if words[0] == "make":
            assert subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, timeout=60).returncode == 0
            continue
        assert words[0] == "mononphm", ours
        extra = next((more for start, more in SMALLER.items() if tuple(words[1 : 1 + len(start)]) == start), "")
        if "evaluate" in words:
            lay_a_ball(place)
        if words[1] == "doctor":
            assert main.run(["doctor", "--json"]) in (0, 1)
            said = next(c for c in json.loads(capfd.readouterr().out)["checks"] if c["name"] == "paths")
            assert all(str(path) in said["said"] for path in paths.values())
            continue
        code = main.run([*words[1:], *shlex.split(extra)])
        assert code == 0, f"{ours}\n{capfd.readouterr().err[-3000:]}"
    out = place / "work" / "out" / "510_seq_4"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"]["name"] == "mononphm_release"
    assert [row["frame_index"] for row in json.loads((out / "cameras.json").read_text())["frames"]] == [0, 1]
    assert json.loads((out / "cameras.json").read_text())["source"] == "given"
    assert (place / "experiments" / "own" / "checkpoints" / "checkpoint_epoch_1.tar").is_file()


def lay_a_ball(place: Path) -> None:
    """Depth for the evaluation, and in the place of a head of twelve epochs a ball that is surely there."""
    import cv2

    from tests.core.evaluation.runs import write_run
    from tests.core.evaluation.test_kinect import ball

    sequence = place / "tracking" / "510_seq_4"
    (sequence / "depth").mkdir(exist_ok=True)
    depth = np.rint(sphere_depth()).astype(np.uint16)
    cv2.imwrite(str(sequence / "depth" / "0.png"), depth)
    cv2.imwrite(str(sequence / "seg" / "0.png"), np.where(depth > 0, 2, 0).astype(np.uint8))
    (sequence / "kinect_intrinsics.txt").write_text("60 60 220 220")
    run = place / "work" / "out" / "510_seq_4"
    kept = place / "work" / "out" / "kept"
    shutil.copytree(run, kept, dirs_exist_ok=True)
    made = ball()
    shutil.rmtree(run / "meshes", ignore_errors=True)
    from mononphm_core.types import HeadMesh

    cameras = (run / "cameras.json").read_bytes()
    write_run(run, {0: HeadMesh(made.vertices * 1000, made.faces)})
    (run / "cameras.json").write_bytes(cameras)
