"""The six folders of the published code: from the environment or its own file, optional, shown by the doctor."""

import pytest

from mononphm_cli import main
from mononphm_cli.commands import doctor
from worker.ledger.places import PUBLISHED, Places


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Nobody's settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in PUBLISHED:
        monkeypatch.delenv(f"MONONPHM_{name.upper()}", raising=False)
    return tmp_path


def write_file(home, **values):
    folder = home / ".config" / "mononphm"
    folder.mkdir(parents=True)
    (folder / ".env").write_text("".join(f'MONONPHM_{name}="{value}"\n' for name, value in values.items()))


def test_none_is_needed(home):
    """No account, no folder of anybody: the doctor says so and is content."""
    assert all(getattr(Places(), name) is None for name in PUBLISHED)
    assert doctor.check_paths().state == "ok"


def test_the_published_codes_own_file_is_read_and_the_environment_goes_first(home, monkeypatch):
    """Whoever has set it up there has set it up here."""
    write_file(home, DATA_TRACKING="/there/tracking", EXPERIMENT_DIR="/there/experiments", SOMETHING_ELSE="x")
    monkeypatch.setenv("MONONPHM_EXPERIMENT_DIR", str(home))
    places = Places()
    assert str(places.data_tracking) == "/there/tracking"
    assert places.experiment_dir == home


def test_the_doctor_shows_them_and_what_does_not_exist(home, monkeypatch):
    """A misspelt path is found before an hour of work."""
    write_file(home, DATA="/there/scans")
    monkeypatch.setenv("MONONPHM_EXPERIMENT_DIR", str(home))
    found = doctor.check_paths()
    assert found.state == "warn"
    assert "MONONPHM_DATA=/there/scans" in found.said and f"MONONPHM_EXPERIMENT_DIR={home}" in found.said
    assert "MONONPHM_DATA" in found.next_step and "EXPERIMENT" not in found.next_step


def test_a_name_is_looked_up_only_where_it_is_no_path_here(home, monkeypatch):
    """`reconstruct 510_seq_4` finds the prepared folder; an existing file of that name goes first."""
    monkeypatch.setenv("MONONPHM_DATA_TRACKING", str(home / "tracking"))
    (home / "tracking" / "510_seq_4").mkdir(parents=True)
    monkeypatch.chdir(home)
    from pathlib import Path

    assert Places().prepared(Path("510_seq_4")) == home / "tracking" / "510_seq_4"
    (home / "510_seq_4").mkdir()
    assert Places().prepared(Path("510_seq_4")) == Path("510_seq_4")
    assert Places().prepared(Path("nowhere")) == Path("nowhere")


def test_a_command_without_its_folder_says_which_variable_may_name_it(home, capsys):
    """Usage, exit code 2."""
    assert main.run(["train", "supervision"]) == 2
    assert "MONONPHM_DATA" in capsys.readouterr().err
    assert main.run(["train", "published", "--data", str(home)]) == 2
    assert "MONONPHM_EXPERIMENT_DIR" in capsys.readouterr().err
