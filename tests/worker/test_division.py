"""How a long clip is divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mononphm_core.io.selection import choose
from worker.division import MOST_KEYS, Division, division, may_divide
from worker.ledger.options import UNDIVIDED, USUAL_PART, ReconstructionOptions
from worker.ledger.records import PartSpec


@given(total=st.integers(9, 20_000), size=st.integers(8, 1000), keys=st.sampled_from([8, 24, 96]))
def test_every_picture_belongs_to_one_stretch_and_every_part_finds_what_it_needs(total, size, keys):
    divided = Division(total, size, keys)
    owned = [divided.own(number) for number in range(divided.stretches)]
    assert owned[0][0] == 0 and owned[-1][1] == total
    assert all(before[1] == after[0] for before, after in zip(owned, owned[1:], strict=False))
    assert max(last - first for first, last in owned) <= size
    assert all(
        first >= wide_first and last <= wide_last
        for (first, last), (wide_first, wide_last) in zip(
            owned, map(divided.tracked, range(divided.stretches)), strict=True
        )
    )
    assert divided.keys <= min(total, max(keys, MOST_KEYS))
    made = {(part.round, part.number) for part in [*divided.who(), *divided.tracks()]}
    assert all(need in made for part in divided.meshes({}) for need in part.needs)
    for part in (*divided.tracks()[:1], *divided.meshes({"middle": 3})[-1:]):
        assert PartSpec.from_json(part.to_json()) == part and Division.of(part) == divided


def test_a_clip_stays_whole_unless_it_is_long_or_somebody_asks():
    assert division(ReconstructionOptions(), UNDIVIDED, 24) is None
    assert division(ReconstructionOptions(), UNDIVIDED + 1, 24) == Division(UNDIVIDED + 1, USUAL_PART, 24)
    assert division(ReconstructionOptions(part_frames=10), 11, 24) == Division(11, 10, 24)
    assert not may_divide(ReconstructionOptions(), 24) and may_divide(ReconstructionOptions(max_frames=500), 24)
    assert not may_divide(ReconstructionOptions(max_frames=500, solver="published"), 24)


@pytest.mark.parametrize("selected", [{}, {"stride": 3}, {"fps": 10.0}, {"max_frames": 50}, {"start_s": 1.0}])
def test_the_pictures_of_all_parts_are_those_of_the_clip(selected):
    """Whatever the user selects: part after part, each picture once, and key frames are among them."""
    times = [0.04 * number for number in range(200)]
    whole = choose(times, **selected)
    divided = Division(len(whole), 16, 8)
    parts = [choose(times, **selected, part=divided.own(number)) for number in range(divided.stretches)]
    assert [index for part in parts for index in part] == whole
    assert set(choose(times, **selected, keys=divided.keys)) <= set(whole)
