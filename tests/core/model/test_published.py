"""The map between published names and our modules, and what is said of a checkpoint that does not fit."""

import copy
import math

import pytest
import torch

from mononphm_core.errors import AssetError
from mononphm_core.model.config import RELEASE, DeformationConfig, GlobalIdentityConfig, ModelConfig
from mononphm_core.model.published import (
    ambient_of,
    entries,
    head_model,
    model_config,
    model_type_of,
    published_states,
)
from tests.golden.checkpoints import configuration, published_shapes, random_states, small

GLOBAL = ModelConfig(
    GlobalIdentityConfig(anchors=12, d_geo=9, d_app=7, hidden=10, layers_geo=4, layers_app=3),
    DeformationConfig(d_expression=5, d_identity=0, identity="global", hidden=8, layers=5),
)


def anchors_for(config: ModelConfig) -> torch.Tensor:
    return torch.linspace(-0.4, 0.4, 3 * config.identity.anchors, dtype=torch.float64).view(-1, 3)


@pytest.mark.parametrize("config", [small(), GLOBAL], ids=["nphm", "global"])
def test_a_model_goes_to_the_published_names_and_back_unchanged(config):
    """Nothing is lost, doubled or transposed on the way: a trained model can be handed to the published code."""
    states = random_states(config, seed=3)
    back = published_states(head_model(config, states, anchors_for(config)))
    for section, state in states.items():
        assert set(back[section]) == set(state)
        for name, value in state.items():
            assert torch.equal(back[section][name], value), name


def test_the_release_configuration_is_the_default_of_the_product():
    """`RELEASE` and the published yaml are one thing said twice."""
    assert model_config(configuration("release")) == RELEASE


def test_the_release_has_as_many_published_tensors_as_its_description():
    """730 and 16, and the count of parameters, from the published table."""
    shapes = published_shapes(RELEASE)
    counted = {
        section: (len(of), sum(math.prod(shape) for shape in of.values()))
        for section in ("id_decoder", "ex_decoder")
        if (of := {name: shape for (part, name), shape in shapes.items() if part == section})
    }
    assert counted == {"id_decoder": (730, 10_284_627), "ex_decoder": (16, 937_557)}


def test_the_other_published_type_is_recognised_and_read_without_its_missing_entries():
    """Its yaml lacks `ex.nhyper`, on which its own constructor fails; the width of the checkpoint says it."""
    document = {
        "decoder": {
            "decoder_nloc": 65,
            "id": {"lat_dim": 512, "lat_dim_app": 512, "hidden_dim": 512, "nlayers": 6, "nlayers_color": 6,
                   "nfreq_bands_geo": 0, "nfreq_bands_color": 0, "nloc": 65, "nsymm_pairs": 16},
            "ex": {"mode": "glob_only", "lat_dim_ex": 100, "lat_dim_id": 16, "hidden_dim": 400, "nlayers": 6},
        }
    }  # fmt: skip
    assert model_type_of(document) == "global"
    assert model_type_of(configuration("tiny")) == "nphm"
    states = random_states(GLOBAL, seed=1)
    assert ambient_of(states) == 2
    config = model_config(document)
    assert config.identity == GlobalIdentityConfig()
    assert (config.deformation.ambient, config.deformation.identity) == (2, "global")


def test_a_configuration_without_blend_std_or_nhyper_means_those_of_the_release():
    """Configurations older than the release lack them."""
    document = configuration("release")
    del document["decoder"]["id"]["blend_std"], document["decoder"]["ex"]["nhyper"]
    assert model_config(document) == RELEASE


def test_the_prefix_of_distributed_training_is_no_part_of_a_name():
    """`module.` is added by a wrapper of the training code."""
    config = small()
    states = random_states(config, seed=4)
    prefixed = {section: {f"module.{name}": v for name, v in state.items()} for section, state in states.items()}
    plain = head_model(config, states, anchors_for(config)).state_dict()
    for name, value in head_model(config, prefixed, anchors_for(config)).state_dict().items():
        assert torch.equal(value, plain[name])


def test_a_tensor_with_and_without_the_prefix_is_ambiguous():
    """Which of the two was meant is nobody's guess."""
    states = random_states(small(), seed=4)
    states["id_decoder"][f"module.{NAME}"] = states["id_decoder"][NAME] + 1
    with pytest.raises(AssetError, match=rf"id_decoder\.{NAME.replace('.', '[.]')} is there twice"):
        head_model(small(), states, anchors_for(small()))


NAME = "deepSDFensemble.layers.3.layers.2.weight"


def without(state):
    del state[NAME]


def misshapen(state):
    state[NAME] = state[NAME][:, :-1]


def infinite(state):
    state[NAME][0, 0] = math.nan


def half(state):
    state[NAME] = state[NAME].half()


def surplus(state):
    state[f"{NAME}_v"] = state[NAME]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without, "is missing"), (misshapen, r"is \(11, 10\), the configuration says \(11, 11\)"),
        (infinite, "has 1 numbers that are not finite"), (half, "is float16, expected float32"),
        (surplus, "is unknown"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named_with_its_fault(damage, reason):
    """The one who has the file must find the tensor without a debugger."""
    config = small()
    states = copy.deepcopy(random_states(config, seed=5))
    damage(states["id_decoder"])
    with pytest.raises(AssetError, match=rf"id_decoder\.{NAME.replace('.', '[.]')}(_v)? {reason}.*configs[.]yaml"):
        head_model(config, states, anchors_for(config))


def test_a_checkpoint_of_other_sizes_names_the_first_few_and_counts_the_rest():
    """A wrong configuration makes hundreds of misfits: the message stays one that a person reads."""
    config = small()
    with pytest.raises(AssetError, match=r"; and \d+ more[.] Give") as refused:
        head_model(RELEASE, random_states(config, seed=5), torch.zeros(65, 3))
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("id.nneigh", 5, "expected a whole number from 8 to 65"), ("id.nneigh", 66, "expected a whole number"),
        ("id.nsymm_pairs", 40, "more than half"), ("ex.mode", "GNN", "expected one of compress"),
        ("ex.nlayers", 10**9, "expected a whole number"), ("id.gnn.hidden_dim_geo", "200", "expected a whole number"),
        ("id.lat_dim_glob", True, "expected a whole number"), ("id.blend_std", float("nan"), "expected a positive"),
        ("ex.lat_dim_ex", None, "lacks decoder.ex.lat_dim_ex"), ("id.gnn", None, "no section decoder.id.gnn"),
        ("id", [], "no section decoder.id"),
    ],
)  # fmt: skip
def test_a_configuration_out_of_reason_is_refused_before_anything_is_made_from_it(path, value, reason):
    """It comes from a stranger's file; a billion layers must not even be counted."""
    document = configuration("release")
    node = document["decoder"]
    *parents, last = path.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    with pytest.raises(AssetError, match=reason):
        model_config(document, "nphm")


def test_anchors_of_another_count_are_refused():
    """The mean anchors are a file beside the checkpoint, easily mixed up."""
    config = small()
    with pytest.raises(AssetError, match="expected 21 finite points"):
        head_model(config, random_states(config, seed=1), torch.zeros(65, 3))
    with pytest.raises(AssetError, match="finite"):
        head_model(config, random_states(config, seed=1), torch.full((21, 3), math.inf))


def test_every_tensor_has_one_place_and_every_parameter_is_filled():
    """Both ways: no published tensor is dropped, none of our parameters keeps its random start."""
    for config in (small(), GLOBAL):
        places = [(e.ours, e.row) for e in entries(config)]
        assert len(places) == len(set(places))
        model = head_model(config, random_states(config, 0), anchors_for(config))
        assert {ours for ours, _ in places} == {name for name, _ in model.named_parameters()}
