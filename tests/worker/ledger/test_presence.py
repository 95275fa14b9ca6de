"""A worker that died on this machine is seen to be dead: its job begins again at once, not when its lease runs out."""

import os
import subprocess
import sys

import pytest

from worker.ledger import presence
from worker.ledger.presence import has_died, here

pytestmark = pytest.mark.skipif(here() is None, reason="only /proc tells which processes live")


@pytest.fixture
def process():
    """A real one that waits."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()
    child.stdin.close()


def test_who_lives_is_not_dead(process):
    assert not has_died(here())
    assert not has_died(here(process.pid))


def test_a_killed_process_is_dead_before_and_after_its_parent_looks(process):
    """A zombie still has a number; it works no more."""
    said = here(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_died(said)
    process.wait()
    assert has_died(said)


def test_a_number_given_out_again_is_somebody_else(process):
    said = here(process.pid)
    assert has_died(said | {"start": said["start"] - 1})


@pytest.mark.parametrize("other", [None, {}, {"machine": "another", "pid": 2**22, "start": 1}])
def test_of_other_machines_nothing_is_claimed(other):
    assert not has_died(other)


def test_a_system_that_does_not_tell_claims_nothing(monkeypatch, tmp_path, process):
    said = here(process.pid)
    process.kill()
    process.wait()
    monkeypatch.setattr(presence, "PROC", tmp_path)
    assert here() is None
    assert not has_died(said)


def test_the_job_of_a_dead_worker_waits_again_long_before_its_lease_is_over(ledger, submit, process):
    """And that of one who lives stays: both hold leases that are good for a while."""
    ledger.lease_s = 600.0
    dies, lives = submit(), submit()
    ledger.worker_seen("dies", None, {"presence": here(process.pid)})
    ledger.worker_seen("lives", None, {"presence": here()})
    stale = ledger.claim("dies", dies.id)
    held = ledger.claim("lives", lives.id)
    assert ledger.reap() == []
    process.kill()
    process.wait()
    assert ledger.reap() == [dies.id]
    assert ledger.get(dies.id).state.value == "queued"
    assert ledger.claim("lives", dies.id).fence == stale.fence + 1
    held.heartbeat()
