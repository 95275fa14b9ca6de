"""The glTF writer against its own reader and against what the format demands."""

import numpy as np
import pytest

from mononphm_core.io.gltf import Builder, container, parts, rows_of


def test_dense_and_sparse_rows_come_back_as_they_went():
    """Sparse stores the rows that are not zero; a reader sees no difference."""
    rows = np.zeros((9, 3), np.float32)
    rows[[2, 7]] = [[1, 2, 3], [-4, 5.5, 6]]
    build = Builder()
    dense, sparse = build.floats(rows, bounds=True), build.sparse(rows, bounds=True)
    data = build.glb({"asset": {"version": "2.0"}})
    np.testing.assert_array_equal(rows_of(data, dense), rows)
    np.testing.assert_array_equal(rows_of(data, sparse), rows)
    document, _ = parts(data)
    assert document["accessors"][sparse]["sparse"]["count"] == 2
    assert document["accessors"][sparse]["min"] == [-4.0, 0.0, 0.0]


def test_rows_that_are_all_zero_take_no_bytes():
    """A blendshape that a prior lacks (the tongue) is an accessor without a buffer view: zeros by the specification."""
    build = Builder()
    accessor = build.sparse(np.zeros((5, 3)), bounds=True)
    build.floats(np.ones((1, 3)))
    data = build.glb({"asset": {"version": "2.0"}})
    np.testing.assert_array_equal(rows_of(data, accessor), np.zeros((5, 3)))
    assert "bufferView" not in parts(data)[0]["accessors"][accessor]


def test_every_view_starts_at_a_multiple_of_four():
    """Accessors must be aligned to their components (3.6.2.4), pictures before them have any length."""
    build = Builder()
    build.view(b"odd")
    build.floats(np.ones((2, 3)))
    build.indices(np.array([[0, 1, 1]]))
    assert all(view["byteOffset"] % 4 == 0 for view in build.views)


@pytest.mark.parametrize("data", [b"", b"glTF", container({"asset": {"version": "2.0"}}, b"")[:-1], b"x" * 64])
def test_other_bytes_are_refused(data):
    """A truncated download is no file."""
    with pytest.raises(ValueError, match="GLB"):
        parts(data)
