"""The short form of `make chaos`: half a minute of kill -9 on real processes, and nothing that was promised is lost."""

import pytest

from tests.chaos.run import Storm
from worker.ledger import failpoints


@pytest.mark.slow
def test_half_a_minute_of_kills_loses_nothing(tmp_path):
    """API, workers, their children and the broker's messages, at random and at named places; users that insist.

    The list of promises is kept outside the system. Afterwards every promised job has ended once, with the right bytes,
    and the janitors leave no file that no row names.
    """
    storm = Storm(tmp_path, "embedded", seed=7, lease_s=2.0)
    try:
        storm.rage(25.0, pause_s=2.5)
        verdict = storm.verdict()
    finally:
        storm.system.stop()
    assert storm.users is not None
    assert len(storm.users.promises) >= 3, "nobody was served: this storm proved nothing"
    assert sum(count for name, count in storm.done.items() if "killed" in name) >= 5
    assert verdict.is_clean, vars(verdict)


def test_a_failpoint_that_there_is_not_is_an_error(monkeypatch):
    """A misspelt name would be a storm without wind."""
    monkeypatch.setenv(failpoints.VARIABLE, "comit.before:1")
    with pytest.raises(ValueError, match=r"comit\.before"):
        failpoints._armed()


def test_every_failpoint_stands_in_the_code():
    """And no place in the code is missing from the list."""
    import re
    from pathlib import Path

    root = Path(failpoints.__file__).parents[2]
    sources = [*(root / "worker").rglob("*.py"), *(root / "service").rglob("*.py")]
    used = {name for path in sources for name in re.findall(r'reach\("([\w.]+)"\)', path.read_text())}
    assert used == {*failpoints.NAMES, *failpoints.STORE_NAMES}


def test_without_the_variable_nothing_is_armed():
    assert failpoints._ARMED == {}
