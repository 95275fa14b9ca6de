"""The options are public: what they accept, refuse and echo."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.ledger import Order, ReconstructionOptions
from worker.ledger.options import OUTPUTS


def options(**given_options):
    return ReconstructionOptions.from_json(given_options)


def test_nothing_given_is_resolved_to_values_that_the_job_can_echo():
    """The contract echoes resolved values: only what really is unknown (model, end, frame choice) stays null."""
    resolved = options().resolved(is_video=True)
    assert (resolved.quality, resolved.stages, resolved.mesh_resolution) == ("standard", [1, 2], 96)
    assert resolved.outputs == list(OUTPUTS)
    assert options().resolved(is_video=False).stages == [1]
    assert options(stages=[1]).resolved(is_video=True).stages == [1]


def test_the_published_grid_has_the_published_resolution_by_what_is_reconstructed():
    """300 for a still, 150 after stage 1 of a clip, 200 after stage 2; what the user says counts more."""
    dense = options(mesh_extraction="published")
    assert dense.resolved(is_video=False).mesh_resolution == 300
    assert dense.resolved(is_video=True).mesh_resolution == 200
    assert options(mesh_extraction="published", stages=[1]).resolved(is_video=True).mesh_resolution == 150
    assert options(mesh_extraction="published", mesh_resolution=64).resolved(is_video=True).mesh_resolution == 64


def test_the_keys_are_those_of_the_contract():
    """Names are law."""
    names = "model quality stages camera start_s end_s fps stride max_frames part_frames downsample_factor face outputs"
    names += " mesh_format mesh_resolution mesh_extraction solver iterations_scale seed webhook_url labels priority"
    names += " retention_hours"
    assert set(ReconstructionOptions.model_fields) == set(names.split())


@pytest.mark.parametrize(
    "bad",
    [
        {"unknown": 1},
        {"quality": "best"},
        {"fps": 5.0, "stride": 2},
        {"start_s": 3.0, "end_s": 3.0},
        {"stages": [2]},
        {"stages": [2, 1]},
        {"stages": []},
        {"camera": {"fx": 1.0, "fy": 1.0, "cx": 1.0}},
        {"camera": {"fx": 1.0, "fy": 1.0, "cx": 1.0, "cy": 1.0, "fov_deg": 40.0}},
        {"camera": {"fov_deg": 180.0}},
        {"camera": {}},
        {"downsample_factor": 0.0},
        {"downsample_factor": 1.5},
        {"seed": -1},
        {"seed": True},
        {"fps": float("nan")},
        {"max_frames": 0},
        {"max_frames": "10"},
        {"labels": ["a"] * 3 + [str(i) for i in range(20)]},
        {"labels": ["line\nbreak"]},
        {"labels": [""]},
        {"model": "../../etc/passwd"},
        {"webhook_url": "file:///etc/passwd"},
        {"outputs": ["everything"]},
        {"retention_hours": 0},
        {"face": "smallest"},
        {"face": -1},
        {"mesh_resolution": 100_000},
        {"solver": "best"},
        {"mesh_extraction": "dense"},
        {"iterations_scale": 0.0},
        {"iterations_scale": 1.5},
    ],
)
def test_what_the_contract_excludes_is_refused(bad):
    """A typo or an impossible wish must be an error before the job, not a surprise after it."""
    with pytest.raises(ValidationError):
        options(**bad)


def test_outputs_may_be_named_by_their_files():
    """Section 5 of the contract speaks of files; both ways of naming mean the same."""
    assert options(outputs=["identity.npz", "meshes/", "identity"]).outputs == ["identity", "meshes"]


def ordinary(low, high):
    """Floats without subnormals: processes that have set up tensor work flush those to zero."""
    return st.floats(low, high, allow_subnormal=False)


cameras = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {name: ordinary(1, 5000) for name in ("fx", "fy", "cx", "cy")}, optional={"k1": ordinary(-1, 1)}
    ),
    st.fixed_dictionaries({"fov_deg": ordinary(5, 150)}),
)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.sampled_from(["draft", "standard", "high"]),
        "camera": cameras,
        "fps": ordinary(0.1, 100),
        "end_s": ordinary(1, 100),
        "face": st.one_of(st.sampled_from(["largest", "center"]), st.integers(0, 9)),
        "labels": st.lists(st.text("abc é", min_size=1, max_size=9), max_size=16),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@given(wishes, st.booleans())
def test_options_survive_json_and_resolving_twice_changes_nothing(wish, is_video):
    """They pass through a database, a pipe and a manifest; what comes out must be what went in."""
    resolved = options(**wish).resolved(is_video)
    assert ReconstructionOptions.from_json(json.loads(json.dumps(resolved.to_json()))) == resolved
    assert resolved.resolved(is_video) == resolved


def test_an_order_survives_the_pipe(tmp_path):
    """The child must see exactly the order that the ledger made."""
    order = Order("rec_1", tmp_path / "input", "clip.mp4", "video/mp4", "ab", options(fps=5.0), 2, "out_of_memory")
    assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order
