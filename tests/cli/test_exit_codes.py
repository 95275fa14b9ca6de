"""The contract's exit codes: 0 done, 2 usage, 3 input, 4 asset, 5 resource, 1 anything else."""

import errno
import json
import subprocess
import sys
from importlib.metadata import version

import click
import pytest

from mononphm_cli import failures, main
from mononphm_core import errors


def family(root):
    return [root, *(deeper for child in root.__subclasses__() for deeper in family(child))]


EXPECTED = {
    errors.MonoNPHMError: 1,
    errors.InputError: 3,
    errors.ConfigError: 2,
    errors.AssetError: 4,
    errors.SolveError: 1,
    errors.ResourceError: 5,
}


def make(kind):
    return kind(7, "colour") if kind is errors.Diverged else kind("what happened")


@pytest.mark.parametrize("kind", family(errors.MonoNPHMError), ids=lambda kind: kind.__name__)
def test_every_core_error_has_its_branch_s_exit_code(kind):
    """The map is total: a new class inherits the code of its branch without anybody thinking of it."""
    branch = next(ancestor for ancestor in kind.__mro__ if ancestor in EXPECTED)
    assert failures.exit_code(make(kind)) == EXPECTED[branch]


@pytest.mark.parametrize(
    "kind", [kind for kind in family(errors.MonoNPHMError) if kind not in EXPECTED], ids=lambda kind: kind.__name__
)
def test_a_remote_job_fails_with_the_code_of_the_same_failure_here(kind):
    """`submit --wait` and `reconstruct` must mean the same to a script."""
    assert failures.exit_code(failures.RemoteFailure("no", kind.code)) == failures.exit_code(make(kind))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), 5),
        (MemoryError(), 5),
        (OSError(errno.EACCES, "no"), 1),
        (ValueError("bug"), 1),
        (failures.RemoteFailure("?", "some_new_code", 415), 3),
        (failures.RemoteFailure("?", "some_new_code", 413), 3),
        (failures.RemoteFailure("?", "some_new_code", 422), 2),
        (failures.RemoteFailure("?", "some_new_code", 507), 5),
        (failures.RemoteFailure("?", "some_new_code", 500), 1),
        (failures.ServerUnreachable("nobody there"), 1),
    ],
)
def test_other_failures_have_the_contract_s_codes(error, code):
    """Full disks and unknown codes of a newer server included."""
    assert failures.exit_code(error) == code


@pytest.mark.parametrize("kind", family(errors.MonoNPHMError), ids=lambda kind: kind.__name__)
def test_what_the_user_reads_is_never_empty_and_no_traceback(kind):
    """Also when a class is raised without a word."""
    silent = kind(7, "colour") if kind is errors.Diverged else kind()
    said = failures.describe(silent)
    assert len(said) > len("Error: ")
    assert "Traceback" not in said


def test_advice_about_models_is_given_where_a_model_is_the_reason():
    """Whoever gave the wrong FLAME file or scan is not helped by a list of models."""
    assert failures.describe(errors.AssetError("give generic_model.pkl")) == "Error: give generic_model.pkl"
    for kind in (errors.WeightsNotFound, errors.ChecksumMismatch):
        assert "`mononphm models " in failures.describe(kind("no"))


@pytest.fixture
def breaking_command(monkeypatch):
    """`mononphm doctor` raises what it is told."""

    def install(error):
        @click.command("doctor")
        def command():
            raise error

        monkeypatch.setattr("mononphm_cli.commands.doctor.command", command)

    return install


def test_a_core_error_in_a_command_becomes_its_exit_code(breaking_command, mononphm):
    """End to end through the one mapping place."""
    breaking_command(errors.NoFaceFound("no face in 12 frames: use a clip in which the face is larger"))
    ran = mononphm("doctor")
    assert ran.code == 3
    assert ran.err.strip() == "Error: no face in 12 frames: use a clip in which the face is larger"


def test_a_traceback_is_shown_for_debug_only(breaking_command, mononphm):
    """The promise to users, and the way out for developers, on either side of the command's name."""
    breaking_command(ValueError("surprise"))
    assert "Traceback" not in mononphm("doctor").err
    assert "Traceback" in mononphm("--debug", "doctor").err
    assert "Traceback" in mononphm("doctor", "--debug").err


def test_ctrl_c_is_one_word(breaking_command, mononphm):
    """No traceback, not success."""
    breaking_command(KeyboardInterrupt())
    ran = mononphm("doctor")
    assert (ran.code, ran.err.strip()) == (1, "Stopped.")


@pytest.mark.parametrize("line", [["nonsense"], ["submit"], ["jobs", "show"], ["doctor", "--colour", "blue"]])
def test_a_wrong_command_line_is_usage(line):
    """2, as every Unix command says it."""
    assert main.run(line) == 2


def test_help_names_every_command_and_imports_none():
    """`--help` must be instant and `api` must never have met torch."""
    script = (
        "import sys\nfrom mononphm_cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'httpx', 'celery', 'sqlalchemy', 'rich', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(code or ', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in ("submit", "jobs", "doctor", "models", "demo"):
        assert f"  {name} " in done.stdout


def test_the_version_is_that_of_the_installed_package(mononphm):
    """One place says it: pyproject.toml."""
    assert mononphm("--version").out.strip() == f"mononphm {version('mononphm')}"


def test_submit_prints_json_that_parses(server, clip, mononphm):
    """--json is for programs: standard output is one document, the rest goes to standard error."""
    ran = mononphm("submit", clip, "--server", server.url, "--json", "--label", "a", "--label", "b", "--stage", "1")
    job = json.loads(ran.out)
    assert ran.code == 0
    assert job["options"] == {"labels": ["a", "b"], "stages": [1]}


def test_submit_with_download_ends_with_verified_files(server, clip, mononphm, tmp_path):
    """The one line that most users will type."""
    ran = mononphm("submit", clip, "--server", server.url, "--download", tmp_path / "out")
    assert ran.code == 0
    assert (tmp_path / "out" / "meshes" / "frame_00000.ply").stat().st_size == 50_004
    assert "checksums verified" in ran.out


def test_a_failed_job_ends_submit_with_the_reason_s_code(server, clip, mononphm):
    """A script can tell a bad clip from a bad server."""
    server.faults(fail_with="no_face")
    ran = mononphm("submit", clip, "--wait", "--server", server.url)
    assert ran.code == 3
    assert "and what to do" in ran.err
    server.faults(fail_with="out_of_memory")
    assert mononphm("submit", clip, "--wait", "--server", server.url).code == 5


def test_jobs_can_be_listed_shown_cancelled_retried_and_deleted(server, clip, mononphm):
    """Each verb of the group reaches the server and says what the server said."""
    at = ("--server", server.url)
    job_id = json.loads(mononphm("submit", clip, *at, "--json").out)["id"]
    assert json.loads(mononphm("jobs", "list", *at, "--json").out)[0]["id"] == job_id
    assert "clip.mp4" in mononphm("jobs", "show", job_id, *at).out
    assert json.loads(mononphm("jobs", "cancel", job_id, *at, "--json").out)["state"] == "cancelled"
    assert mononphm("jobs", "download", job_id, *at).code == 1
    assert json.loads(mononphm("jobs", "retry", job_id, *at, "--json").out)["state"] == "queued"
    assert mononphm("jobs", "wait", job_id, *at).code == 0
    assert mononphm("jobs", "delete", job_id, *at).code == 0
    assert mononphm("jobs", "show", "rec_none", *at).code == 1


def test_a_key_travels_as_a_bearer_token(server, clip, mononphm, monkeypatch):
    """From the environment, so that it is in no shell history."""
    monkeypatch.setenv("MONONPHM_KEY", "secret")
    mononphm("submit", clip, "--server", server.url)
    assert server.seen("POST", "/reconstructions")[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "options",
    [["--fps", "5", "--stride", "2"], ["--fov", "40", "--camera", "K"], ["--fov", "400"], ["--max-frames", "0"]],
)
def test_options_that_contradict_or_overflow_never_reach_the_server(server, clip, mononphm, options, tmp_path):
    """Caught here, at once, as usage."""
    camera = tmp_path / "K.json"
    camera.write_text('{"fx": 1, "fy": 1, "cx": 1, "cy": 1}')
    line = [str(camera) if word == "K" else word for word in options]
    assert mononphm("submit", clip, "--server", server.url, *line).code == 2
    assert server.seen("POST", "/reconstructions") == []


def test_the_camera_file_is_the_camera_of_the_job(server, clip, mononphm, tmp_path):
    """The same JSON that the HTTP option takes."""
    camera = tmp_path / "K.json"
    camera.write_text('{"fx": 1100.5, "fy": 1100.5, "cx": 540, "cy": 960}')
    ran = mononphm("submit", clip, "--server", server.url, "--camera", camera, "--json")
    assert json.loads(ran.out)["options"]["camera"] == {"fx": 1100.5, "fy": 1100.5, "cx": 540, "cy": 960}
