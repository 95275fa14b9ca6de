"""Golden numbers: small tables in this folder, and the full reference fixtures where a checkout has them.

`python -m tests.golden.tables REFERENCE_FOLDER` remakes the small tables from the full ones (README.md).
"""

import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = ROOT.parent / "shared" / "reference" / "golden"
"""The full fixtures; they do not come with the repository."""

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "README.md").is_file(),
    reason="the full reference fixtures are not beside this checkout; the small tables in tests/golden are tested",
)


def reference(name: str) -> dict[str, np.ndarray]:
    """A full fixture by file name without `.npz`."""
    with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def table(name: str) -> dict[str, np.ndarray]:
    """A small table of this folder by file name without `.npz`."""
    with np.load(HERE / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


FORWARD = (
    "geo", "app", "exp", "queries", "cotangent_sdf", "cotangent_color", "cotangent_gradient", "anchors", "hyper_coords",
    "compressed", "f64_offsets", "f64_sdf", "f64_color", "f64_gradient", "zero_sdf", "zero_color", "zero_gradient",
    "f64_vjp_geo", "f64_vjp_app", "f64_vjp_exp", "f64_vjp_of_gradient_geo", "f64_vjp_of_gradient_exp",
)  # fmt: skip
"""Of a forward fixture; float64 where the fixture has it."""
BLENDED_ROWS = 64
STEPS = ("stage1_iter_tiny_generic", "render_tiny_SH_var0.6", "grid_tiny")
"""Fixtures that are kept here too: one whole iteration, one rendering without its intermediate points, one mesh."""
INTERMEDIATE = ("fine_points_world", "fine_net_values")


def fixture(name: str) -> dict[str, np.ndarray]:
    """A fixture of `STEPS` from this folder, any other from the full ones."""
    return table(name) if name in STEPS else reference(name)


def derive(source: Path) -> None:
    """Write the small tables of this folder from the full fixtures."""
    for name in ("anchors_65_synthetic.npy", "last_layers_tiny.npz", "last_layers_release.npz", "schedules.csv"):
        (HERE / name).write_bytes((source / name).read_bytes())
    full = dict(np.load(source / "forward_tiny.npz", allow_pickle=False))
    kept = {key: full[key] for key in FORWARD}
    kept["knn_idx"] = full["knn_idx"][:BLENDED_ROWS].astype(np.int16)
    kept["blend_weights"] = full["blend_weights"][:BLENDED_ROWS]
    np.savez_compressed(HERE / "forward_tiny.npz", **kept)
    full = dict(np.load(source / "forward_release.npz", allow_pickle=False))
    kept = {key: full[key][:BLENDED_ROWS] for key in ("queries", "f64_offsets", "f64_sdf", "f64_color", "f64_gradient")}
    kept |= {key: full[key] for key in ("geo", "app", "exp", "anchors", "compressed")}
    np.savez_compressed(HERE / "forward_release.npz", **kept)
    for name in STEPS:
        full = dict(np.load(source / f"{name}.npz", allow_pickle=False))
        np.savez_compressed(HERE / f"{name}.npz", **{k: v for k, v in full.items() if k not in INTERMEDIATE})


if __name__ == "__main__":
    derive(Path(sys.argv[1]))
