"""The short form of the hostile uploads of `make fuzz`."""

import pytest

from tests.fuzz.uploads import Attack


@pytest.mark.slow
def test_hostile_uploads_hurt_nobody_and_leave_nothing(tmp_path):
    """A real API and worker: all are answered, every accepted one ends, and nothing is left or written elsewhere."""
    attack = Attack(tmp_path, seed=3)
    try:
        attack.rage(30.0, most=60)
    finally:
        attack.stop()
    assert not attack.tally.broken, attack.tally.broken
    assert attack.tally.uploads >= 10
    assert sum(attack.tally.endings.values()) >= 3, "no decoder was ever reached: this attack proved nothing"
