"""`mononphm doctor` tells the truth about this machine, and about a broken one."""

import json
import socket

import pytest

from mononphm_cli.commands import doctor


@pytest.fixture(autouse=True)
def nothing_is_configured(monkeypatch):
    """The report is about the embedded default unless a test says otherwise."""
    for name in ("MONONPHM_BROKER_URL", "MONONPHM_DATABASE_URL", "MONONPHM_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quick(monkeypatch):
    """Without the three probes that import large libraries; they have a test of their own."""
    for name in ("check_device", "check_faces", "check_codecs"):
        monkeypatch.setattr(doctor, name, lambda: doctor.Finding("probe", "ok", "not tried"))


@pytest.mark.parametrize("name", ["torch", "faces", "codecs"])
def test_the_libraries_of_this_environment_work(name):
    """The suite runs where the product must run, so each probe must succeed here: tensors, faces, a clip read back."""
    facts = doctor.probe(name)
    assert facts
    if name == "codecs":
        assert {"h264", "hevc", "vp9", "av1"} <= set(facts["decoders"])


def test_a_library_that_breaks_is_a_finding_and_not_the_end():
    """A probe is a process; its last words are the report."""
    finding = doctor.guarded("faces", lambda: doctor.Finding("faces", "ok", str(doctor.probe("no such probe"))))
    assert finding.state == "fail"
    assert "no such probe" in finding.said
    assert finding.next_step


def test_a_missing_model_means_that_the_main_job_cannot_run(quick, mononphm, monkeypatch):
    """Exit code 1, and the name of what is missing, in both forms of the report."""
    monkeypatch.setattr("worker.models.installed", list)
    ran = mononphm("doctor")
    assert ran.code == 1
    assert "cannot run here: models" in ran.out
    report = json.loads(mononphm("doctor", "--json").out)
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"] if check["state"] == "fail"] == ["models"]


def test_a_broker_that_does_not_answer_is_found(quick, mononphm, monkeypatch):
    """A port that nobody listens on: bound here, so that nobody else can."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MONONPHM_BROKER_URL", f"redis://:secret@127.0.0.1:{reserved.getsockname()[1]}/0")
        ran = mononphm("doctor", "--json")
    broker = next(check for check in json.loads(ran.out)["checks"] if check["name"] == "broker")
    assert broker["state"] == "fail"
    assert "MONONPHM_BROKER_URL" in broker["next_step"]
    assert "secret" not in ran.out


def test_a_database_that_cannot_be_opened_is_found(monkeypatch):
    """A URL of somewhere else: the report has the driver's first line, not its traceback."""
    monkeypatch.setenv("MONONPHM_DATABASE_URL", "sqlite:////proc/no/such/folder.sqlite3")
    finding = doctor.guarded("database", lambda: doctor.check_database(None))
    assert finding.state == "fail"
    assert "\n" not in finding.said


def test_a_full_disk_is_found(monkeypatch, tmp_path):
    """Room for less than one job."""
    monkeypatch.setattr(doctor, "ROOM_FOR_A_JOB", 1 << 62)
    assert doctor.check_disk(tmp_path).state == "fail"


def test_a_data_directory_need_not_exist_and_is_not_made_by_looking(tmp_path):
    """A check changes nothing."""
    wanted = tmp_path / "not" / "yet"
    for check in (doctor.check_storage, doctor.check_disk, doctor.check_database):
        assert check(wanted).state == "ok"
    assert not wanted.exists()
    assert list(tmp_path.iterdir()) == []
