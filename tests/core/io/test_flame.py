"""A FLAME file gives plain arrays whatever wrote it, or is refused with nothing executed."""

import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from mononphm_core.errors import AssetError
from mononphm_core.io.flame import read_embedding, read_flame
from tests.core.preprocessing.flames import embedding_arrays, flame_arrays, write


class Hostile:
    """Unpickled by an unlimited reader, it runs a shell command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_every_format_gives_the_same_arrays(tmp_path):
    """.npz, .safetensors and .pkl of plain arrays."""
    arrays = flame_arrays()
    reference = read_flame(write(tmp_path / "flame.npz", arrays))
    assert same(read_flame(write(tmp_path / "flame.pkl", arrays)), reference)
    kinds = {name: np.float64 if array.dtype.kind == "f" else np.int64 for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(array.astype(kinds[name])) for name, array in arrays.items()}
    save_file(tensors, tmp_path / "flame.safetensors")
    assert same(read_flame(tmp_path / "flame.safetensors"), reference)


@pytest.mark.parametrize("sparse", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_as_flame_is_published_is_read(tmp_path, monkeypatch, sparse, protocol):
    """chumpy objects, a sparse regressor, texts: chumpy is not needed, and is not imported where it is there."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    arrays = flame_arrays()
    reference = read_flame(write(tmp_path / "flame.npz", arrays))
    published = dict(arrays)
    for name in ("v_template", "shapedirs"):
        published[name] = module.Ch()
        vars(published[name]).update(x=arrays[name], _dirty_vars=set(), _itr=None)
    published["J_regressor"] = sparse(arrays["J_regressor"])
    published |= {"bs_style": "lbs", "bs_type": "lrotmin"}
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(published, protocol=protocol))
    assert same(read_flame(path), reference)


def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path):
    """At any depth: among the entries, or as the contents of an array of objects."""
    told = tmp_path / "executed"
    for bad in (Hostile(f"touch {told}"), np.array([Hostile(f"touch {told}")], object)):
        path = write(tmp_path / "flame.pkl", flame_arrays() | {"extra": bad})
        with pytest.raises(AssetError, match="nothing of it was executed"):
            read_flame(path)
    assert not told.exists()
    pickle.load(io.BytesIO(pickle.dumps(Hostile(f"touch {told}"))))
    assert told.exists(), "the file would have run in an unlimited reader, so the test can fail"


def test_names_that_are_not_in_the_table_are_refused(tmp_path):
    """Also those that look near: numpy's other functions, builtins, scipy's functions."""
    for line in (b"cnumpy\nload\n.", b"c__builtin__\neval\n.", b"cscipy.sparse\nload_npz\n.", b"cos\nsystem\n."):
        (tmp_path / "flame.pkl").write_bytes(line)
        with pytest.raises(AssetError, match="nothing of it was executed"):
            read_flame(tmp_path / "flame.pkl")


def test_a_sparse_matrix_that_claims_the_moon_is_refused(tmp_path):
    """Its shape is two numbers of the file; memory would be the victim."""
    huge = scipy.sparse.csc_matrix((1 << 20, 1 << 20))
    path = write(tmp_path / "flame.pkl", flame_arrays() | {"J_regressor": huge})
    with pytest.raises(AssetError, match="sparse matrix"):
        read_flame(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": None}, "lacks weights"),
        ({"posedirs": np.zeros((150, 3, 9))}, "posedirs"),
        ({"shapedirs": np.zeros((150, 3, 7))}, "7 columns"),
        ({"v_template": np.full((150, 3), np.nan)}, "v_template"),
        ({"f": np.full((9, 3), 150)}, "triangles"),
        ({"kintree_table": np.full((2, 5), 4)}, "joints"),
    ],
)
def test_what_is_no_flame_is_named(tmp_path, change, said):
    """Each array by its name, with what to give instead."""
    arrays = {name: value for name, value in (flame_arrays() | change).items() if value is not None}
    with pytest.raises(AssetError, match=f"(?s){said}.*Give the FLAME"):
        read_flame(write(tmp_path / "flame.npz", arrays))


def test_other_files_are_refused(tmp_path):
    """Missing, cut off, arrays of objects, another ending."""
    with pytest.raises(AssetError, match="There is no"):
        read_flame(tmp_path / "flame.pkl")
    for name, data in (("a.npz", b"PK"), ("a.pkl", b"\x80\x02}q"), ("a.safetensors", b"x"), ("a.txt", b"x")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AssetError):
            read_flame(tmp_path / name)
    np.savez(tmp_path / "objects.npz", v_template=np.array([Hostile("false")], object))
    with pytest.raises(AssetError, match="plain arrays"):
        read_flame(tmp_path / "objects.npz")


def test_landmarks_are_68_or_51_on_triangles_that_exist(tmp_path):
    """With the names of the public embeddings too, and their leading axis of 1."""
    flame = read_flame(write(tmp_path / "flame.npz", flame_arrays()))
    arrays = embedding_arrays()
    faces, weights = arrays["faces_idx"], arrays["barycentrics"]
    whole = read_embedding(write(tmp_path / "a.npz", arrays), flame)
    other = {"full_lmk_faces_idx": faces[None], "full_lmk_bary_coords": weights[None]}
    assert same(read_embedding(write(tmp_path / "b.npz", other), flame), whole)
    inner = {"lmk_face_idx": faces[17:], "lmk_b_coords": weights[17:]}
    assert len(read_embedding(write(tmp_path / "c.pkl", inner), flame).faces) == 51
    for bad in ({"faces_idx": faces + 200}, {"faces_idx": faces[:5]}, {"barycentrics": 2 * weights}):
        with pytest.raises(AssetError, match=r"Give an \.npz"):
            read_embedding(write(tmp_path / "d.npz", arrays | bad), flame)
