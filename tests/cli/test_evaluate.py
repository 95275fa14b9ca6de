"""`mononphm evaluate`: the short and the long form, and what a program reads."""

import json

import pytest

from mononphm_cli import main
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
