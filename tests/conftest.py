"""Shared by all tests: tensors are prepared once, as every process of the product does."""

import importlib.util
from collections.abc import Iterator

import pytest

from tests.support.object_store import ObjectStore

if importlib.util.find_spec("torch") is not None:
    import numpy as np

    from mononphm_core.numerics import warm_up

    # NumPy works out the limits of its types on first use, and must not do that after denormals became zero.
    for kind in (np.float32, np.float64):
        np.finfo(kind)
    warm_up()


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3-compatible server of our own, a real process; one for the whole session, a bucket for each test."""
    pytest.importorskip("moto", reason="the S3-compatible server is not installed: pip install 'mononphm[dev]'")
    with ObjectStore.started() as store:
        yield store


@pytest.fixture
def bucket_url(object_store: ObjectStore) -> str:
    """A fresh bucket, as MONONPHM_STORAGE_URL names it; the tests' own prefix in it."""
    return object_store.new_bucket()
