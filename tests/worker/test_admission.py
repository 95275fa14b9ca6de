"""What a worker may take on: memory that is there, a GPU that nobody else has, and the models it has loaded."""

import os
import subprocess
import sys

import pytest

from tests.worker.helpers import REPOSITORY
from worker import devices, gpu_child, memory


def test_a_container_has_what_its_limit_leaves(tmp_path):
    """A machine's free memory is not ours where a limit is nearer; page cache is given back on demand."""
    (tmp_path / "memory.max").write_text(f"{100 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{70 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {10 << 20}\n")
    assert memory.spare_bytes(None, tmp_path) == 40 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.spare_bytes(None, tmp_path) > 40 << 20


def test_what_the_child_holds_already_counts_as_spare(tmp_path):
    (tmp_path / "memory.max").write_text("0")
    (tmp_path / "memory.current").write_text("0")
    (tmp_path / "memory.stat").write_text("")
    assert memory.spare_bytes(os.getpid(), tmp_path) > 1 << 20


def test_two_children_never_share_a_gpu(tmp_path, monkeypatch):
    """The second process gets the second device, the third none; a device is free again when its holder is gone."""
    monkeypatch.setattr(devices, "lock_folder", lambda: tmp_path)
    code = (
        "import sys, pathlib; from worker import devices; "
        f"print(devices.take_one(['GPU-a', 'GPU-b'], pathlib.Path({str(tmp_path)!r})), flush=True); sys.stdin.read()"
    )
    start = [sys.executable, "-c", code]
    holders = [
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
        for _ in range(2)
    ]
    try:
        assert sorted(holder.stdout.readline().strip() for holder in holders) == ["0", "1"]
        with pytest.raises(RuntimeError, match="one worker for each GPU"):
            gpu_child.own_gpu("auto", ["GPU-a", "GPU-b"])
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    assert gpu_child.own_gpu("cuda:1", ["GPU-a", "GPU-b"]) == "cuda:1"
