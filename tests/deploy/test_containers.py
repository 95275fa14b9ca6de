"""The images and the compose files: form, rights, references. docs/containers.md says what was ever executed."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tests.deploy.containers import ROOT, compose, instructions, interpolated, laid_over

FILES = ("docker-compose.yml", "docker-compose.cpu.yml", "docker-compose.objects.yml")
RUNS_ONCE = {"secrets"}


def merged() -> dict:
    """What Compose makes of all files."""
    return laid_over(laid_over(compose(FILES[0]), compose(FILES[1])), compose(FILES[2]))


def test_both_ways_to_start_are_valid_under_the_compose_specification():
    """Held against the specification's own JSON schema, as the validator's package brings it."""
    pytest.importorskip("check_jsonschema", reason="the schema comes with check-jsonschema (extra `deploy`)")
    from jsonschema.validators import validator_for

    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator = validator_for(schema)(schema)
    for document in (compose(FILES[0]), merged()):
        assert [error.message for error in validator.iter_errors(interpolated(document))] == []
    broken = interpolated(compose(FILES[0]))
    broken["services"]["api"]["port"] = broken["services"]["api"].pop("ports")
    assert list(validator.iter_errors(broken)), "a schema that takes an unknown key proves nothing"


def test_every_reference_inside_the_compose_file_leads_somewhere():
    """Volumes, networks, services and mounted files: what is misspelt here is found on the day of the start."""
    document = compose(FILES[0])
    assert {"api", "worker", "redis", "postgres", "objects", "prometheus", "grafana"} <= set(document["services"])
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            found = (ROOT / source).exists() if source.startswith("./") else source in document["volumes"]
            assert found, f"{name}: {volume}"
        assert set(service.get("depends_on", {})) <= set(document["services"]), name
        assert set(service.get("networks", [])) <= set(document["networks"]), name


def test_a_plain_up_starts_nothing_that_was_not_asked_for():
    """Monitoring and the object store cost memory; they are profiles."""
    services = compose(FILES[0])["services"]
    assert {name for name, service in services.items() if "profiles" not in service} == {
        "secrets", "postgres", "redis", "api", "worker",
    }  # fmt: skip


def test_every_container_is_hardened_bounded_and_says_whether_it_is_well():
    """Faces are biometric data: least rights by default, for each container without exception."""
    for name, service in merged()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        if name not in RUNS_ONCE:
            assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"]), name


def test_nothing_is_published_beyond_this_machine():
    """No key is asked for on loopback, so nothing else may be bound by default."""
    for name, service in merged()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_no_password_stands_in_the_compose_files():
    """Secrets travel by file."""
    for name, service in merged()["services"].items():
        for variable in service.get("environment", {}):
            assert not variable.endswith(("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY")), f"{name}: {variable}"


def test_the_worker_reserves_a_gpu_and_the_override_gives_it_back():
    """`capabilities` is mandatory in the specification; without it Compose refuses the file."""
    resources = compose(FILES[0])["services"]["worker"]["deploy"]["resources"]
    assert resources["reservations"]["devices"] == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    worker = merged()["services"]["worker"]
    assert worker["deploy"]["resources"] == {"limits": resources["limits"]}
    assert worker["environment"]["MONONPHM_DEVICE"] == "cpu"
    assert worker["environment"]["MONONPHM_BROKER_URL"] == "redis://redis:6379/0", "the settings below stay"


def test_the_first_start_makes_secrets_once_and_never_again(tmp_path):
    """The script of the service `secrets`, run for real in a folder of its own, twice."""
    script = interpolated(compose(FILES[0]))["services"]["secrets"]["command"][0]
    made = []
    for _ in range(2):
        subprocess.run(["sh", "-ec", script.replace("/secrets", str(tmp_path))], check=True, timeout=30)
        made.append({path.name: path.read_text() for path in tmp_path.iterdir()})
    first, second = made
    assert first == second
    assert set(first) == {"postgres_password", "grafana_password", "s3_key", "s3_secret", "s3.json"}
    assert all(re.fullmatch("[0-9a-f]{64}", first[name]) for name in first if name != "s3.json")
    credentials = json.loads(first["s3.json"])["identities"][0]["credentials"]
    assert credentials == [{"accessKey": first["s3_key"], "secretKey": first["s3_secret"]}]
    assert len(set(first.values())) == len(first)


def test_the_entry_hands_secrets_over_and_becomes_the_command(tmp_path):
    """Secrets come from files and reach the libraries; the command gets the process, so that SIGTERM reaches it."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret with spaces $HOME\n")
    script = "import os; print(os.environ['PGPASSWORD'], os.getpid(), 'PGPASSWORD_FILE' in os.environ)"
    started = subprocess.Popen(
        ["sh", ROOT / "scripts" / "container_entry.sh", sys.executable, "-c", script],
        env={"PGPASSWORD_FILE": str(secret), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = started.communicate(timeout=30)
    assert said == f"s3cret with spaces $HOME {started.pid} False\n"


# ---- Dockerfile ---------------------------------------------------------------------------------------------------


def test_the_dockerfile_passes_its_linter():
    """hadolint with ShellCheck inside; the one rule that is set aside says why beside it."""
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (extra `deploy`)")
    done = subprocess.run([hadolint, ROOT / "Dockerfile.gpu"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "", done.stdout


def test_the_images_run_as_nobody_in_particular():
    """Both targets: a numeric user, a health check, and a signal that drains."""
    for target in ("service", "worker"):
        words = {instruction.word: instruction.text for instruction in instructions() if instruction.stage == target}
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", words["USER"]), target
        assert "HEALTHCHECK" in words and words["ENTRYPOINT"] == '["container_entry"]', target


def test_what_is_copied_exists_and_is_let_into_the_build():
    """`.dockerignore` shuts everything out by default: a forgotten line is found by the builder only."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages = {instruction.stage for instruction in instructions()}
    copied = [instruction for instruction in instructions() if instruction.word == "COPY"]
    for instruction in copied:
        *sources, _ = [part for part in instruction.text.split() if not part.startswith("--")]
        if source := re.search(r"--from=(\S+)", instruction.text):
            assert source[1] in stages
            continue
        for name in sources:
            assert (ROOT / name).exists(), name
            assert name in allowed, name
    assert len(copied) > 10


def test_bases_are_pinned_and_packages_come_by_hash_alone():
    """No `latest`, no package without its checksum, none at all while our own is built."""
    text = {i.text for i in instructions() if i.word == "ARG" and "_IMAGE=" in i.text}
    assert all(re.search(r"=[\w/.-]+:\d[\w.-]+$", base) for base in text) and len(text) == 3
    for instruction in instructions():
        if instruction.word == "RUN" and "pip install" in instruction.text:
            assert "--require-hashes" in instruction.text or "--no-index --no-deps" in instruction.text


def test_the_service_image_never_meets_torch():
    """Slim is a promise: its lock holds no tensor library."""
    names = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "service.lock").read_text(), re.MULTILINE)
    assert not {"torch", "numpy", "mediapipe", "jax", "opencv-contrib-python"} & set(names)
    used = [i.text for i in instructions() if i.stage.startswith("service") and "lock" in i.text]
    assert used and all("worker.lock" not in text for text in used)


def test_cuda_is_that_of_the_locked_torch():
    """With another major version than the wheels' own, extensions refuse to build."""
    lock = (ROOT / "requirements" / "worker.lock").read_text()
    major = re.search(r"^nvidia-cuda-runtime==(\d+)\.", lock, re.MULTILINE)
    assert major
    for instruction in instructions():
        if instruction.word == "ARG" and "CUDA" in instruction.text and "nvidia/cuda:" in instruction.text:
            assert f"nvidia/cuda:{major[1]}." in instruction.text


@pytest.mark.parametrize(
    "script", ["container_entry.sh", "build_pytorch3d.sh", "setup.sh", "lock.sh", "release_check.sh"]
)
def test_the_scripts_of_the_images_parse(script):
    """A shell finds a missing `fi` only when it gets there."""
    assert subprocess.run(["bash", "-n", ROOT / "scripts" / script], timeout=20).returncode == 0
