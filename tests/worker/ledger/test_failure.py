"""The map from the core's failures to the public ones."""

import errno
import inspect

import pytest

from mononphm_core import errors as core
from worker.ledger import Failure, failure_of
from worker.ledger.failure import DESCRIPTIONS

FAMILY = [kind for _, kind in inspect.getmembers(core, inspect.isclass) if issubclass(kind, core.MonoNPHMError)]


def make(kind, message):
    return kind(7, "silhouette") if kind is core.Diverged else kind(message)


@pytest.mark.parametrize("kind", FAMILY)
def test_every_core_error_has_a_public_failure_of_its_own(kind):
    """Total: a new class in the family without a title and an advice fails here."""
    assert kind in DESCRIPTIONS
    failure = failure_of(make(kind, "frame 3 is black"), "stage1")
    assert (failure.code, failure.retryable, failure.stage) == (kind.code, kind.retryable, "stage1")
    assert failure.title == DESCRIPTIONS[kind].title
    assert failure.detail.endswith(DESCRIPTIONS[kind].advice)
    assert Failure.from_json(failure.to_json()) == failure


def test_no_two_kinds_share_a_code():
    """A client branches on the code."""
    codes = [kind.code for kind in FAMILY]
    assert len(codes) == len(set(codes))


def test_the_unforeseen_shows_an_incident_and_nothing_else():
    """Paths, traces and values of a bug belong to the log."""
    failure = failure_of(ValueError("/home/someone/models/secret.safetensors has shape 3"), "meshing")
    assert failure.code == "internal_error"
    assert "inc_" in failure.detail
    assert "secret" not in str(failure.to_json())


def test_paths_inside_a_core_message_are_cut_to_their_name():
    """Where a server keeps its files is nobody's business; which file it was may help."""
    detail = failure_of(core.ChecksumMismatch("/var/lib/mononphm/prior.safetensors differs from 12/34 of abc")).detail
    assert "/var" not in detail
    assert "prior.safetensors differs from 12/34" in detail


def test_pythons_own_words_for_full_disk_and_no_memory_are_understood():
    """They are raised by libraries, far from the core."""
    assert failure_of(OSError(errno.ENOSPC, "No space left on device")).code == "out_of_disk"
    assert failure_of(MemoryError()).code == "out_of_memory"
    cuda = type("OutOfMemoryError", (RuntimeError,), {})  # torch's class, by its name
    assert failure_of(cuda("CUDA out of memory")).code == "out_of_memory"
