"""`mononphm evaluate`: the short and the long form, and what a program reads."""

import json
import shutil

import pytest

from mononphm_cli import main
from mononphm_cli.evaluating import prior_exam
from mononphm_core.io import registry
from tests.core.evaluation import runs


@pytest.mark.parametrize("words", [["evaluate"], ["evaluate", "run"]])
def test_a_run_is_scored_with_or_without_the_word_run(words, tmp_path, capsys):
    """The promised form names no subcommand."""
    runs.write_truth(tmp_path / "gt", frames=1)
    runs.write_run(tmp_path / "run", {0: runs.before_camera(runs.head(), 0)})
    assert main.run([*words, str(tmp_path / "run"), "--truth", str(tmp_path / "gt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"]["clip"]["face"]["mean"] < 0.02
    assert found["frames_delivered"] == 1


def test_options_may_come_first_and_text_is_for_reading(tmp_path, capsys):
    """The shell user's habit."""
    runs.write_truth(tmp_path / "gt", frames=1)
    runs.write_run(tmp_path / "run", {0: runs.before_camera(runs.head(), 0)})
    assert main.run(["evaluate", "--truth", str(tmp_path / "gt"), str(tmp_path / "run")]) == 0
    assert "surface -> GT" in capsys.readouterr().out


def test_a_folder_without_truth_is_the_inputs_fault(tmp_path, capsys):
    """Exit code 3 and the missing file by name."""
    runs.write_run(tmp_path / "run", {0: runs.before_camera(runs.head(), 0)})
    (tmp_path / "gt").mkdir()
    assert main.run(["evaluate", str(tmp_path / "run"), "--truth", str(tmp_path / "gt")]) == 3
    assert "video_gt.npz" in capsys.readouterr().err


def test_a_prior_is_examined_by_name_or_by_path_and_one_that_was_added_too(tmp_path, capsys, monkeypatch):
    """Which weights are opened; the exam itself needs the open head data."""
    asked = []
    monkeypatch.setattr(prior_exam, "examine", lambda model, *_: asked.append(model.config) or {"neutral_face_mm": 0.5})
    monkeypatch.setenv("MONONPHM_MODELS_DIR", str(tmp_path / "added"))
    shutil.copytree(registry.find_model().path.parent, tmp_path / "added" / "mine")
    for model in ([], ["--model", "mine"], ["--model", str(tmp_path / "added" / "mine")]):
        assert main.run(["evaluate", "prior", "--data", str(tmp_path), *model, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["figures"]["weights_mb"] > 1
    assert len(asked) == 3
    assert main.run(["evaluate", "prior", "--data", str(tmp_path), "--model", "none"]) == 4
    assert "mine" in capsys.readouterr().err
