"""The short form of the decoder's part of `make fuzz`."""

import pytest

from tests.fuzz.decoder import MUTATIONS, corpus, fuzz


@pytest.mark.slow
def test_damaged_media_give_pictures_or_a_refusal_and_never_hurt_the_reader(tmp_path):
    """Uploads are hostile until read: no exception but ours, no hang, no growth, whatever the bytes."""
    tally = fuzz(tmp_path, seconds=20, seed=2, most=40)
    assert not tally.broken, tally.broken
    assert tally.cases >= 5  # 40 in eight seconds on an idle machine
    assert sum(tally.answers.values()) == tally.cases


def test_the_unbroken_corpus_is_read_whole(tmp_path):
    """A mutant proves nothing if its parent was refused already."""
    import numpy as np

    from mononphm_core.config import FrameSelection
    from mononphm_core.io.media import read_clip
    from tests.fuzz.decoder import LIMITS

    for name, content in corpus(tmp_path).items():
        (tmp_path / "upload").write_bytes(content)
        clip = read_clip(tmp_path / "upload", FrameSelection(), LIMITS)
        assert len(clip.frames) == (1 if name.startswith("still") else 3 if name.startswith("moving") else 6), name
        assert not clip.warnings, name
    rng = np.random.default_rng(0)
    whole = np.frombuffer(content, np.uint8)
    assert all(mutation(whole, rng).tobytes() != content for mutation in MUTATIONS)
