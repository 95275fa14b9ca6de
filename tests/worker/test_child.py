"""The child process itself: torch lives here, its answers cannot be garbled, and it never outlives its supervisor."""

import io
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.worker.helpers import REPOSITORY
from worker import logs
from worker.child import Child, ChildGone
from worker.gpu_child import taints
from worker.ledger import Order, ReconstructionOptions, State
from worker.settings import WorkerSettings


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "worker")]))
    return WorkerSettings(pipeline="tiny_pipeline:run", device="none")


def receive(child, kind):
    """The next message of this kind."""
    for _ in range(600):
        message = child.receive(0.1)
        if message is not None and message["kind"] == kind:
            return message
    raise AssertionError(f"no {kind} came")


def order_of(tmp_path, **script):
    path = tmp_path / "input"
    path.write_text(json.dumps(script))
    return Order("rec_1", path, "clip.mp4", "video/mp4", "ab", ReconstructionOptions())


def test_the_child_wakes_torch_and_chooses_the_device_once(settings):
    """`auto` is resolved in the one process that may know CUDA; the order then names a device."""
    child = Child(settings.model_copy(update={"device": "auto", "threads": 1}))
    try:
        ready = receive(child, "ready")
        assert ready["device"] in ("cpu", "cuda")
        assert ready["model"]["name"] == "tiny"
    finally:
        child.end(2.0)


def test_the_child_lets_others_go_first(settings):
    """Beside it an API answers; and Linux may share by session, where niceness alone says nothing to other ones."""
    child = Child(settings.model_copy(update={"nice": 7}))
    try:
        receive(child, "ready")
        assert psutil.Process(child.pid).nice() == psutil.Process().nice() + 7
        autogroup = Path(f"/proc/{child.pid}/autogroup")
        if autogroup.exists():
            assert autogroup.read_text().rstrip().endswith("nice 7")
    finally:
        child.end(2.0)


def test_what_a_library_prints_cannot_garble_the_protocol(settings, tmp_path, capfd):
    """Native code writes to descriptor 1 whenever it likes; the protocol moved to another one."""
    child = Child(settings)
    try:
        order = order_of(tmp_path, misfortune="NoFaceFound", steps=2)
        (tmp_path / "work").mkdir()
        child.send({"kind": "run", "fence": 4, "workspace": str(tmp_path / "work"), "order": order.to_json()})
        failed = receive(child, "failed")
        assert (failed["fence"], failed["failure"]["code"], failed["tainted"]) == (4, "no_face", False)
    finally:
        child.end(2.0)
    assert "a library prints" in capfd.readouterr().err


def test_a_child_dies_with_its_supervisor_even_by_kill_9(settings, tmp_path):
    """Otherwise the device stays taken by a process that nobody reads."""
    code = """
    import os, signal
    from worker.child import Child
    from worker.settings import WorkerSettings
    child = Child(WorkerSettings(pipeline="tiny_pipeline:run", device="none"))
    while not child.is_ready:
        child.receive(0.1)
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and is_running(int(said.stdout)):
        time.sleep(0.05)
    assert not is_running(int(said.stdout))


def is_running(pid):
    """A zombie that nobody has waited for yet does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_that_cannot_start_says_so_in_the_log_and_leaves(settings, capfd):
    """A broken installation must not look like a worker that is merely slow to start."""
    child = Child(settings.model_copy(update={"pipeline": "no_such_module:run"}))
    with pytest.raises(ChildGone, match="code 1"):
        receive(child, "ready")
    child.end(0.5)
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert (line["level"], line["message"]) == ("critical", "the child cannot start")


def test_the_end_of_a_child_is_told_in_words(settings):
    """`SIGKILL` in a failure tells an operator to look for the out-of-memory killer; `-9` does not."""
    child = Child(settings)
    receive(child, "ready")
    psutil.Process(child.pid).kill()
    with pytest.raises(ChildGone, match="ended by SIGKILL"):
        receive(child, "nothing any more")
    child.end(0.5)


def test_only_failures_that_leave_the_process_sound_keep_it():
    """One lack of memory or device error breaks the next jobs of the same process."""
    from mononphm_core import errors

    sound = (errors.NoFaceFound("x"), errors.ConfigError("x"), errors.WeightsNotFound("x"), errors.NoSurface("x"))
    assert not any(taints(error) for error in sound)
    assert all(taints(error) for error in (errors.OutOfDeviceMemory("x"), RuntimeError("CUDA error"), MemoryError()))


def test_a_child_that_has_grown_is_replaced_between_jobs(crew):
    """A slow leak must not end in the out-of-memory killer during somebody's job."""
    worker = crew.hire(child_rss_growth_bytes=32 << 20)
    crew.wait(crew.submit(steps=1), State.SUCCEEDED)
    (first, *_) = crew.children_of(worker)
    crew.wait(crew.submit(steps=1), State.SUCCEEDED)
    assert first in crew.children_of(worker), "a child that did not grow stays"
    crew.wait(crew.submit(steps=1, leak_mb=64), State.SUCCEEDED)
    crew.until(lambda: not first.is_running())
    crew.wait(crew.submit(steps=1), State.SUCCEEDED)


def test_every_log_line_of_a_job_names_it_and_its_fence():
    """Without both, the log of a job that ran twice cannot be told apart."""
    token = logs.job_context.set({"job_id": "rec_1", "fence": 3, "stage": "stage1"})
    try:
        record = logging.LogRecord("worker", logging.INFO, __file__, 1, "frame %d: %d of 65", (17, 3), None)
        record.seconds = 1.5
        line = json.loads(logs.JsonFormatter().format(record))
    finally:
        logs.job_context.reset(token)
    assert (line["job_id"], line["fence"], line["stage"], line["seconds"]) == ("rec_1", 3, "stage1", 1.5)
    assert line["message"] == "frame 17: 3 of 65"


class StuckDisk(io.StringIO):
    """Takes no line until it is told to."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()

    def write(self, text):
        self.free.wait()
        return super().write(text)


def test_a_log_on_a_stuck_disk_holds_nobody_up(monkeypatch):
    """A full page cache stops a write for seconds; the event loop logs every request. In the end every line stands
    there in its order, and what was too much is counted."""
    monkeypatch.setattr(logs, "MOST_LINES", 50)
    disk = StuckDisk()
    handler = logs.Behind(disk)
    handler.setFormatter(logs.JsonFormatter())
    for number in range(80):
        handler.handle(logging.LogRecord("service", logging.INFO, __file__, 1, "line %d", (number,), None))
    disk.free.set()
    handler.close()
    said = [json.loads(line)["message"] for line in disk.getvalue().splitlines()]
    kept = [line for line in said if line.startswith("line")]
    assert kept == [f"line {number}" for number in range(len(kept))] and len(kept) in (50, 51)
    assert [line for line in said if line not in kept] == [f"{80 - len(kept)} lines were left out"]
