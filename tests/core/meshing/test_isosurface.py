"""The sparse isosurface against closed forms and against its dense twin."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mononphm_core.errors import ConfigError, NoSurface
from mononphm_core.meshing.clean import face_areas, largest_component, signed_volume
from mononphm_core.meshing.isosurface import Focus, Lattice, extract_surface, extract_surface_dense
from mononphm_core.types import HeadMesh, SdfField

BOX_MIN, BOX_MAX = (-0.55, -0.52, -0.75), (0.55, 0.68, 0.42)
FOCUS = Focus((-0.19, -0.33, 0.05), (0.19, 0.11, 0.43), finer=2.5, ramp=0.03)
"""Reaches beyond the box in front."""


def sphere(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.4


def torus(x: Tensor) -> Tensor:
    ring = torch.stack([x[:, :2].norm(dim=-1) - 0.35, x[:, 2]], dim=-1)
    return ring.norm(dim=-1) - 0.1


def two_blobs(x: Tensor) -> Tensor:
    left, right = x.new_tensor([0.25, 0.0, 0.0]), x.new_tensor([-0.25, 0.1, 0.0])
    return torch.minimum((x - left).norm(dim=-1) - 0.2, (x - right).norm(dim=-1) - 0.03)


def thin_plate(x: Tensor) -> Tensor:
    """An ear-like sheet, thinner than two cells of most grids here."""
    q = x.abs() - x.new_tensor([0.3, 0.4, 0.012])
    return q.clamp_min(0).norm(dim=-1) + q.max(dim=-1).values.clamp_max(0)


def bumpy(x: Tensor) -> Tensor:
    """A learned distance is none exactly: this one has gradients between 0.6 and 1.4."""
    return sphere(x) + 0.01 * torch.sin(40 * x[:, 0]) * torch.cos(40 * x[:, 1])


class Counting:
    """A field that remembers how many points it was asked for."""

    def __init__(self, field: SdfField) -> None:
        self.field, self.asked = field, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.field(x)


def euler_number(mesh: HeadMesh) -> int:
    edges = np.unique(np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=-1), axis=0)
    return len(mesh.vertices) - len(edges) + len(mesh.faces)


def is_watertight(mesh: HeadMesh) -> bool:
    """Every directed edge has exactly one partner in the other direction."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    there, back = set(map(tuple, edges)), set(map(tuple, edges[:, ::-1]))
    return len(there) == len(edges) and there == back


@pytest.mark.parametrize("field", [sphere, torus, two_blobs, thin_plate, bumpy])
@pytest.mark.parametrize("resolution", [9, 40, 97])
@pytest.mark.parametrize("focus", [None, FOCUS])
def test_the_sparse_surface_is_the_dense_surface(field, resolution, focus):
    """Skipping empty space may not change a single triangle: same values near the surface, same marching cubes."""
    if field is thin_plate and resolution == 9:
        pytest.skip("thinner than a cell of this grid")
    sparse = extract_surface(field, BOX_MIN, BOX_MAX, resolution, focus=focus)
    dense = extract_surface_dense(field, BOX_MIN, BOX_MAX, resolution, focus=focus)
    assert np.array_equal(sparse.faces, dense.faces)
    assert np.abs(sparse.vertices - dense.vertices).max() <= 1e-5


def test_the_sparse_surface_asks_a_small_part_of_the_grid():
    """The reason for being sparse; a surface grows with the square of the resolution, a grid with its cube."""
    shares = []
    for resolution in (80, 160):
        field = Counting(sphere)
        extract_surface(field, BOX_MIN, BOX_MAX, resolution)
        shares.append(field.asked / np.prod(Lattice.of(BOX_MIN, BOX_MAX, resolution).shape))
    assert shares[1] < 0.08
    assert shares[1] < 0.62 * shares[0]


def test_a_sphere_has_the_area_volume_and_topology_of_a_sphere():
    """Closed forms; a mesh inscribed with cells of h loses area and volume of order (h / r)^2 = 2e-4."""
    mesh = extract_surface(sphere, BOX_MIN, BOX_MAX, 160)
    assert face_areas(mesh).sum() == pytest.approx(4 * np.pi * 0.4**2, rel=1e-3)
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=1e-3)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=-1) - 0.4).max() < 1e-4  # edge interpolation on a curved field
    assert is_watertight(mesh)
    assert euler_number(mesh) == 2


def test_a_focus_shortens_the_cells_in_its_box_and_nowhere_else():
    """Ends of the box stay, planes keep their order, lengths are as promised: h / 2.5 inside, h elsewhere."""
    plain, focused = (Lattice.of(BOX_MIN, BOX_MAX, 112, focus) for focus in (None, FOCUS))
    longest = max(np.diff(row).max() for row in plain.ticks)
    for axis in range(3):
        row = focused.ticks[axis][: focused.cells[axis] + 1]
        assert row[0] == BOX_MIN[axis] and row[-1] == pytest.approx(BOX_MAX[axis])
        middle, length = (row[1:] + row[:-1]) / 2, np.diff(row)
        beyond = np.maximum(FOCUS.box_min[axis] - middle, middle - FOCUS.box_max[axis])
        assert length[beyond < -longest] == pytest.approx(longest / 2.5, rel=0.02)
        assert length[beyond > FOCUS.ramp + longest] == pytest.approx(longest, rel=0.02)


def test_a_focus_sees_what_plain_cells_tear():
    """A slit of the height of half-closed lids: two thirds of a plain cell. It is one opening, not a row of holes."""

    def slit(x: Tensor) -> Tensor:
        q = (x - x.new_tensor([0.0, 0.0, 0.3])).abs() - x.new_tensor([0.13, 0.0035, 0.2])
        gap = q.clamp_min(0).norm(dim=-1) + q.max(dim=-1).values.clamp_max(0)
        return torch.maximum(sphere(x), -gap)

    plain = extract_surface(slit, BOX_MIN, BOX_MAX, 112)
    focused = extract_surface(slit, BOX_MIN, BOX_MAX, 112, focus=FOCUS)
    assert is_watertight(focused) and euler_number(focused) == 2
    volume = 4 / 3 * np.pi * 0.4**3 - 0.26 * 0.007 * 0.3
    assert abs(signed_volume(focused) - volume) < abs(signed_volume(plain) - volume)


@pytest.mark.parametrize("field, number", [(torus, 0), (two_blobs, 4), (thin_plate, 2)])
def test_the_topology_is_the_fields(field, number):
    """Euler number 2 a ball, 0 a ring: a lost or doubled triangle shows at once. Outward: the volume is positive."""
    mesh = extract_surface(field, BOX_MIN, BOX_MAX, 120)
    assert is_watertight(mesh)
    assert euler_number(mesh) == number
    assert signed_volume(mesh) > 0


def test_zeros_exactly_on_lattice_points_make_no_hole():
    """The worst case of marching cubes: a face of an axis-parallel cube through lattice points."""

    def cube(x: Tensor) -> Tensor:
        return x.abs().max(dim=-1).values - 0.25

    mesh = extract_surface(cube, (-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), 32)
    assert is_watertight(mesh)
    assert euler_number(mesh) == 2
    assert np.linalg.norm(np.ptp(mesh.vertices, axis=0) - 0.5) < 1e-4
    assert face_areas(mesh).min() > 0


@pytest.mark.parametrize("steepness", [3.0, 6.0])
def test_a_field_steeper_than_the_bound_still_gives_the_whole_surface(steepness):
    """A learned field may break the Lipschitz bound: growing the asked region along the surface closes what was cut."""

    def steep(x: Tensor) -> Tensor:
        return steepness * sphere(x)

    sparse = extract_surface(steep, BOX_MIN, BOX_MAX, 97, lipschitz=1.0)
    dense = extract_surface_dense(steep, BOX_MIN, BOX_MAX, 97)
    assert np.array_equal(sparse.faces, dense.faces)
    assert np.abs(sparse.vertices - dense.vertices).max() <= 1e-5


def test_a_surface_cut_by_the_box_stays_open_at_the_wall():
    """As published: the neck is open. Every open edge lies on the wall, nowhere else."""
    mesh = extract_surface(sphere, (-0.5, -0.2, -0.5), (0.5, 0.5, 0.5), 50)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=-1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    rim = mesh.vertices[edges[uses == 1]]
    assert len(rim) > 20
    assert np.abs(rim[..., 1] + 0.2).max() < 1e-6


def test_moving_field_and_box_together_moves_the_mesh_and_nothing_else():
    """The lattice is tied to the box, so no triangle may depend on where the box stands."""
    shift = torch.tensor([0.5, -0.25, 1.0])  # exact in float32
    still = extract_surface(sphere, (-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), 32)
    moved = extract_surface(lambda x: sphere(x - shift), (0.0, -0.75, 0.5), (1.0, 0.25, 1.5), 32)
    assert np.array_equal(still.faces, moved.faces)
    assert np.abs(moved.vertices - still.vertices - shift.numpy()).max() < 1e-5


def test_points_are_asked_in_portions_without_gradient():
    """Memory is bounded by `chunk`, and no graph is built."""
    sizes: list[int] = []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        assert not torch.is_grad_enabled()
        return sphere(x)

    whole = extract_surface(sphere, BOX_MIN, BOX_MAX, 40)
    portions = extract_surface(watched, BOX_MIN, BOX_MAX, 40, chunk=1000)
    assert max(sizes) <= 1000
    assert np.array_equal(whole.vertices, portions.vertices)


@pytest.mark.parametrize("field", [lambda x: sphere(x) + 9.0, lambda x: sphere(x) - 9.0])
def test_a_field_of_one_sign_is_no_surface(field):
    """Wholly outside and wholly inside alike; the message carries the values seen."""
    with pytest.raises(NoSurface, match="keeps one sign"):
        extract_surface(field, BOX_MIN, BOX_MAX, 20)
    with pytest.raises(NoSurface, match="keeps one sign"):
        extract_surface_dense(field, BOX_MIN, BOX_MAX, 20)


def test_a_field_that_is_not_a_number_is_no_surface():
    """Diverged weights must not give a mesh of garbage."""
    with pytest.raises(NoSurface, match="not finite"):
        extract_surface(lambda x: x[:, 0] * float("nan"), BOX_MIN, BOX_MAX, 20)


@pytest.mark.parametrize(
    "box_max, resolution", [((0.5, -0.52, 0.4), 20), ((0.5, 0.5, 0.5), 3), ((0.5, 0.5, 0.5), 5000)]
)
def test_an_empty_box_or_a_foolish_resolution_is_refused(box_max, resolution):
    """Options reach this function from users: a sentence, not a stack of array errors."""
    with pytest.raises(ConfigError):
        extract_surface(sphere, BOX_MIN, box_max, resolution)


def test_a_stray_part_is_seen_and_can_be_dropped():
    """Two blobs are two parts; the larger stays whole, with the area of its sphere."""
    mesh = largest_component(extract_surface(two_blobs, BOX_MIN, BOX_MAX, 120))
    assert euler_number(mesh) == 2
    assert face_areas(mesh).sum() == pytest.approx(4 * np.pi * 0.2**2, rel=2e-3)
