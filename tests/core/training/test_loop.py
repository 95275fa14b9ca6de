"""The training loop on stand-in heads: it learns, stops when told to, and continues where it stood."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from mononphm_core.errors import ConfigError
from mononphm_core.model.config import SMALL, ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.training import loop
from mononphm_core.training.batches import BatchMaker, BatchSizes
from mononphm_core.training.loop import TrainingConfig, losses, train
from mononphm_core.training.pictures import TILE
from mononphm_core.training.pool import Pool, write_shard

pytest.importorskip("igl", reason="training needs the extra `train`")
BOTH = ("identity", "deformation")


@pytest.fixture(scope="module")
def material(heads, painter, coded, tmp_path_factory):
    """A pool of six people, a batch maker, and a config that fits their codes."""
    folder = tmp_path_factory.mktemp("pool")
    write_shard(heads, folder, 0, 600, seed=0, count=6)
    identity = dataclasses.replace(
        SMALL.identity, anchors=len(heads.anchors), symmetric_pairs=heads.pairs, neighbours=4, d_global=4,
        d_local_geo=3, d_local_app=2, hidden_geo=12, hidden_app=8, hidden_anchors=16,
    )  # fmt: skip
    config = ModelConfig(identity, dataclasses.replace(SMALL.deformation, hidden=16))
    maker = BatchMaker(heads, painter, coded.geometry, coded.appearance, complexions=4)
    return config, maker, Pool(folder)


def fresh(material, seed=0):
    config, maker, _ = material
    torch.manual_seed(seed)
    return HeadModel(config, torch.from_numpy(maker.geometry.mean[maker.heads.anchors].copy()))


def test_a_run_learns_and_continues_where_it_stood(material, tmp_path):
    """Budgets are compute time: a larger one continues the same run, an equal one does nothing more."""
    _, maker, pool = material
    sizes = BatchSizes(heads=2, distances=100, correspondences=60, colours=30)
    held_out = maker.draw(np.random.default_rng(99), pool.heads, dataclasses.replace(sizes, distances=1000))

    def errors(model):
        with torch.no_grad():
            return {name: term.item() for name, term in losses(model, held_out, BOTH).items()}

    model = fresh(material)
    before = errors(model)
    plan = TrainingConfig(hours=4 / 3600, warm_up_steps=5, sizes=sizes, pictures_every_s=math.inf)
    train(model, maker, pool, held_out, tmp_path, plan)
    after = errors(model)
    assert all(after[name] < before[name] for name in before), (before, after)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["state"]["seconds"] >= 4
    assert saved["state"]["step"] > 5

    again = fresh(material, seed=7)
    train(again, maker, pool, held_out, tmp_path, plan)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    train(again, maker, pool, held_out, tmp_path, dataclasses.replace(plan, hours=5 / 3600))
    later = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert later["state"]["step"] > saved["state"]["step"]


def test_anchors_are_where_the_codes_say_and_are_held(material):
    """Codes are linear in the vertices: the map is exact but for what the codes leave out."""
    _, maker, pool = material
    model = fresh(material)
    loop.place_anchors(model, maker)
    z = maker.geometry.encode(np.stack([h.canonical for h in pool.heads]))
    said = maker.geometry.decode(z)[:, maker.heads.anchors]
    with torch.no_grad():
        found = model.identity.anchors(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found, said, atol=1e-5)
    assert not model.identity.anchor_head.weight.requires_grad


def test_a_model_whose_anchors_come_from_a_network_is_not_trained(material):
    """The published placement belongs to published weights; a clear refusal instead of anchors that never move."""
    config, maker, _ = material
    network = dataclasses.replace(config, identity=dataclasses.replace(config.identity, placement="network"))
    model = HeadModel(network, torch.from_numpy(maker.geometry.mean[maker.heads.anchors].copy()))
    with pytest.raises(ConfigError, match="linear placement"):
        loop.place_anchors(model, maker)


def test_distances_beyond_the_clamp_teach_nothing(material):
    """30 mm away only the side matters: moving a far target does not change the loss."""
    _, maker, pool = material
    batch = maker.draw(
        np.random.default_rng(0), pool.heads, BatchSizes(heads=2, distances=50, correspondences=20, colours=10)
    )
    model = fresh(material)
    far = dataclasses.replace(batch, sdf=torch.where(batch.sdf > loop.CLAMP, batch.sdf + 1, batch.sdf))
    assert (batch.sdf > loop.CLAMP).any()
    assert torch.equal(losses(model, batch, BOTH)["sdf"], losses(model, far, BOTH)["sdf"])


def test_a_crowd_teaches_shape_and_only_shape(material):
    """People without a search tree add rows to the distances; colours and correspondences stay those of the heads."""
    _, maker, pool = material
    sizes = BatchSizes(heads=2, crowd=3, distances=50, correspondences=20, colours=10)
    batch = maker.draw(np.random.default_rng(0), pool.heads, sizes, pool.heads)
    assert len(batch.z_geo) == len(batch.sdf) == len(batch.x_canonical) == 5
    assert len(batch.z_app) == len(batch.z_exp) == len(batch.x_target) == len(batch.colour) == 2
    alone = maker.draw(np.random.default_rng(0), pool.heads, dataclasses.replace(sizes, crowd=0))
    model = fresh(material)
    both, one = losses(model, batch, BOTH), losses(model, alone, BOTH)
    assert torch.equal(both["colour"], one["colour"])
    assert torch.equal(both["correspondence"], one["correspondence"])
    assert not torch.equal(both["sdf"], one["sdf"])


def test_one_half_can_be_continued_alone(material, tmp_path):
    """The deformation field moves and the canonical head does not, bit by bit."""
    _, maker, pool = material
    sizes = BatchSizes(heads=2, distances=50, correspondences=40, colours=20)
    held_out = maker.draw(np.random.default_rng(99), pool.heads, sizes)
    model = fresh(material)
    plan = TrainingConfig(hours=0.1 / 3600, warm_up_steps=2, sizes=sizes, pictures_every_s=math.inf)
    train(model, maker, pool, held_out, tmp_path, plan)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({**torch.load(checkpoint, weights_only=True), "optimiser": None}, checkpoint)  # moments of another set
    train(model, maker, pool, held_out, tmp_path, dataclasses.replace(plan, hours=3 / 3600, parts=("deformation",)))
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"deformation"}


def test_a_run_leaves_pictures_of_held_out_heads(material, tmp_path):
    """Losses alone hide seams and holes: a sheet of rendered heads lies beside the log when a run ends."""
    _, maker, pool = material
    sizes = BatchSizes(heads=1, distances=50, correspondences=20, colours=10)
    held_out = maker.draw(np.random.default_rng(99), pool.heads, sizes)
    train(fresh(material), maker, pool, held_out, tmp_path, TrainingConfig(hours=0.01 / 3600, sizes=sizes))
    (sheet,) = (tmp_path / "pictures").glob("step_*.png")
    with Image.open(sheet) as drawn:
        assert drawn.size == (TILE[0], 2 * TILE[1])
