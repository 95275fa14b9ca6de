"""The published training: losses in closed form, every weight moves the result, runs resume bit for bit."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.model.published import head_model, model_config
from mononphm_core.training.published import checkpoint
from mononphm_core.training.published.codebooks import Codebook
from mononphm_core.training.published.config import Lambdas, training_of
from mononphm_core.training.published.devices import Devices
from mononphm_core.training.published.fields import FieldCounts
from mononphm_core.training.published.files import Files, find_scans
from mononphm_core.training.published.items import Items, Split, splits
from mononphm_core.training.published.loop import RunOptions, Trainer, train
from mononphm_core.training.published.losses import Codes, corresp_share, losses, pair_distances, total
from mononphm_core.training.published.scans import Assets, mean_anchors, write_supervision
from tests.core.training.balls import VALIDATION, small_document, write_scans

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Supervision of two training subjects and one for validation."""
    scans = write_scans(tmp_path_factory.mktemp("scans"), (3, 7, VALIDATION))
    target = tmp_path_factory.mktemp("supervision")
    write_supervision(
        scans, Assets.read(scans / "assets"), target, lambda s: True, FieldCounts(2000, 400, 300, 2), 100, 1
    )
    return target


@pytest.fixture
def batch(data):
    split, _ = splits(find_scans(data))
    items = Items(Files(data), split, training_of(small_document()), 65)
    return items.batch(list(split.scans[:2]), np.random.default_rng(0))


@pytest.fixture
def model(batch):
    torch.manual_seed(0)
    return HeadModel(model_config(small_document(), "nphm"), batch.anchors[0])


def number(value) -> float:
    """Without its graph."""
    return float(torch.as_tensor(value).detach())


def codes_of(model, rows, scale=0.1):
    sizes = model.config
    draw = lambda width: scale * torch.randn(rows, width)  # noqa: E731
    return Codes(draw(sizes.identity.d_geo), draw(sizes.identity.d_app), draw(sizes.deformation.d_expression))


def test_every_term_is_what_its_definition_says(model, batch):
    """The slow twin: each definition written out over scans and regions, asked of the model anew."""
    codes = codes_of(model, 2)
    terms = losses(model, codes, batch, epoch=1)
    conditioned = model.condition(codes.geo, codes.exp, codes.app)
    values, slopes, colours = [], [], []
    for points, normals, wanted in (
        (batch.surface, batch.surface_normal, batch.surface_colour),
        (batch.outer, batch.outer_normal, batch.outer_colour),
    ):
        seen = model.query(points, conditioned, gradient=True)
        values.append(seen.sdf.detach())
        slopes.append((seen.gradient - normals).norm(dim=-1).detach())
        colours.append((seen.colour - wanted).abs().detach())
    off = model.query(batch.off, conditioned).colour.detach()
    far = model.sdf(batch.far, conditioned).detach()
    assert batch.hair.tolist() == [True, False]
    expected = {
        "surf_sdf": torch.cat([v.abs().flatten() for v in values]).mean(),
        "normals": torch.cat([slopes[0].flatten(), slopes[1][0].clamp(max=0.75) / 4]).mean(),
        "space_sdf": torch.stack([torch.exp(-10 * v.abs()) for v in far.flatten()]).mean(),
        "color": torch.cat(
            [c.flatten() for c in colours] + [(off[0] - batch.off_colour[0]).abs().flatten() / 5]
        ).mean(),
        "reg_shape": sum(float(z @ z) for z in codes.geo) / 2,
        "reg_expr": sum(float(z @ z) for z in codes.exp) / 2,
        "reg_app": sum(float(z @ z) for z in codes.app) / 2,
        "anchors": ((model.identity.anchors(codes.geo) - batch.anchors) ** 2).mean(),
    }
    offset = lambda x: model.deformation(x, conditioned.condition)[0].detach()  # noqa: E731
    ambient = lambda x: model.deformation(x, conditioned.condition)[1].detach()  # noqa: E731
    pairs = batch.corresp_posed + offset(batch.corresp_posed) - batch.corresp_neutral
    expected["corresp"] = (pairs[batch.has_corresp] ** 2).mean()
    expected["loss_reg_zero"] = (offset(batch.anywhere) ** 2).mean()
    still = [offset(batch.surface)[batch.is_neutral], offset(batch.outer), offset(batch.off)]
    expected["loss_neutral_zero"] = (torch.cat([x.flatten() for x in still]) ** 2).mean()
    lifted = torch.cat([ambient(x).flatten() for x in (batch.surface, batch.far, batch.anywhere)]).abs().mean()
    flat = [ambient(batch.surface)[batch.is_neutral], ambient(batch.outer), ambient(batch.off)]
    expected["hyper"] = lifted + 10 * torch.cat([x.flatten() for x in flat]).abs().mean()
    for name, value in expected.items():
        assert number(terms[name]) == pytest.approx(number(value), rel=1e-4, abs=1e-8), name
    assert set(terms) == {f.name for f in fields(Lambdas)}


def test_every_lambda_moves_the_loss_and_what_is_learned(model, batch):
    """A weight that changes nothing is a weight that is not wired."""
    codes = codes_of(model, 2, scale=0.3)
    for z in (codes.geo, codes.app, codes.exp):
        z.requires_grad_(True)
    leaves = [codes.geo, codes.app, codes.exp, *model.parameters()]
    terms = losses(model, codes, batch, epoch=1)
    start = total(terms, Lambdas())
    for field in fields(Lambdas):
        more = total(terms, replace(Lambdas(), **{field.name: getattr(Lambdas(), field.name) + 1.0}))
        assert number(more) > number(start), field.name
        gradients = torch.autograd.grad(terms[field.name], leaves, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), field.name


def test_scans_without_hair_anchors_or_correspondences_do_not_count_there(model, batch):
    """And nothing becomes "not a number" when no scan of a batch has them."""
    none = torch.zeros(2, dtype=torch.bool)
    bare = replace(batch, hair=none, has_anchors=none, has_corresp=none, is_neutral=none)
    codes = codes_of(model, 2)
    terms = losses(model, codes, bare, epoch=1)
    assert all(torch.isfinite(term) for term in terms.values())
    assert number(terms["anchors"]) == number(terms["corresp"]) == number(terms["loss_neutral_zero"]) == 0
    seen = model.sdf(batch.surface, model.condition(codes.geo, codes.exp, codes.app))
    assert number(terms["surf_sdf"]) == pytest.approx(number(seen.abs().mean()), rel=1e-5)


def test_zero_codes_have_no_gradient_of_their_pair_distance():
    """Codebooks start at zero, where the norm has a kink: its slope there must be 0, not NaN."""
    local = torch.zeros(2, 66, 3, requires_grad=True)
    symmetric, midline = pair_distances(local, 30)
    (symmetric + midline).backward()
    assert local.grad is not None and number(local.grad.abs().max()) == 0


def test_correspondences_fade_and_end_at_the_published_epochs():
    """x 0.25 after 750, none from 3000."""
    assert [corresp_share(e) for e in (1, 750, 751, 2999, 3000)] == [1, 1, 0.25, 0.25, 0]


def test_only_used_rows_shrink_and_only_above_norm_one():
    """As an embedding with max_norm does on lookup."""
    book = Codebook(3, 4)
    with torch.no_grad():
        book.embedding.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0.5, 0, 0, 0], [2.0, 0, 0, 0]]))
    twin = torch.nn.Embedding(3, 4, max_norm=1.0, _weight=book.embedding.weight.detach().clone())
    book.renormalise(torch.tensor([0, 1, 0]))
    twin(torch.tensor([0, 1]))
    assert torch.equal(book.embedding.weight, twin.weight)
    assert number(book.embedding.weight[2].norm()) == 2.0


def run_of(data, run, epochs, document=None):
    run.mkdir(parents=True, exist_ok=True)
    return train(data, run, document or small_document(), RunOptions(epochs), CPU)


def test_the_loss_falls_and_the_checkpoint_is_a_published_one(data, tmp_path):
    """What training is for; and whoever reads published checkpoints reads these: names, shapes, anchors, codebooks."""
    run = tmp_path / "balls"
    run_of(data, run, 12)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert np.mean([r["loss"] for r in rows[-3:]]) < 0.8 * rows[0]["loss"]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    saved = torch.load(run / "checkpoints" / "checkpoint_epoch_12.tar", weights_only=True)
    config = model_config(json.loads((run / "configs.yaml").read_text()))
    anchors = torch.from_numpy(np.load(run / "anchors_65.npy"))
    head_model(config, {section: saved[section] for section in ("id_decoder", "ex_decoder")}, anchors)
    assert saved["latent_codes"]["codebook.geo.embedding.weight"].shape == (2, config.identity.d_geo)
    assert saved["latent_codes"]["codebook.exp.embedding.weight"].shape[0] == 4
    assert saved["latent_codes_val"]["codebook.app.embedding.weight"].shape[0] == 1
    assert isinstance(saved["optimizer_lat"], tuple)
    assert json.loads((run / "subject_train_pids.json").read_text()) == [3, 3, 7, 7]
    assert json.loads((run / "subject_train_inds.json").read_text()) == [0, 0, 1, 1]
    assert not torch.equal(saved["latent_codes"]["codebook.exp.embedding.weight"], torch.zeros(4, 4))


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(data, tmp_path):
    """Networks, codes and optimiser states: four epochs at once, and two twice."""
    run_of(data, tmp_path / "whole", 4)
    run_of(data, tmp_path / "halves", 2)
    run_of(data, tmp_path / "halves", 4)
    whole, halves = (
        torch.load(checkpoint.checkpoint_path(tmp_path / name, 4), weights_only=True) for name in ("whole", "halves")
    )
    assert same(whole, halves)


def same(a, b) -> bool:
    """Deep equality with bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_checkpoint_of_other_data_is_refused(data, tmp_path):
    """Codebooks of other people must not be continued under these names."""
    run_of(data, tmp_path / "run", 1)
    path = checkpoint.checkpoint_path(tmp_path / "run", 1)
    saved = torch.load(path, weights_only=True)
    saved["latent_codes"]["codebook.geo.embedding.weight"] = torch.zeros(9, 3)
    torch.save(saved, path)
    with pytest.raises(AssetError, match="does not continue"):
        run_of(data, tmp_path / "run", 2)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_along_the_mean_of_both_gradients(data, tmp_path):
    """The documented command, `torchrun`, on the CPU with gloo. The slow twin sums both devices' losses in one process
    and halves them: networks, codes and the mean loss are the same to the rounding of sums in another order."""
    document = small_document(batch_size=2)
    (tmp_path / "own.yaml").write_text(json.dumps(document))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "mononphm_cli.main", "train", "published", "--config", tmp_path / "own.yaml", "--data", data,
        "--experiments", tmp_path, "--exp-name", "two", "--epochs", "2", "--device", "cpu",
    ]  # fmt: skip
    told = subprocess.run(
        list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=240
    )
    assert told.returncode == 0, told.stderr.decode()[-2000:]
    assert json.loads(told.stdout)["run"] == str(tmp_path / "two")  # said once
    saved = torch.load(checkpoint.checkpoint_path(tmp_path / "two", 2), weights_only=True)
    trainer, mean_losses = twin_of_two(data, document, epochs=2)
    (tmp_path / "twin" / "checkpoints").mkdir(parents=True)
    twin = torch.load(trainer.save(tmp_path / "twin", 2), weights_only=True)
    for section in ("id_decoder", "ex_decoder", "latent_codes"):
        assert saved[section].keys() == twin[section].keys()
        for name, value in saved[section].items():
            torch.testing.assert_close(value, twin[section][name], rtol=1e-4, atol=2e-5, msg=f"{section}.{name}")
    assert (saved["latent_codes"]["codebook.exp.embedding.weight"].norm(dim=-1) > 0).sum() >= 3  # rows of both
    rows = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]  # one process writes
    assert [row["loss"] for row in rows] == pytest.approx(mean_losses, rel=1e-4)


def twin_of_two(data, document, epochs):
    """Both devices' batches in one process; returns the trainer and the epochs' mean losses."""
    split, _ = splits(find_scans(data))
    torch.manual_seed(0)
    model = HeadModel(model_config(document, "nphm"), torch.from_numpy(mean_anchors(data)))
    trainer = Trainer(model, training_of(document), Devices(CPU), Files(data), split, Split(()))
    codes, optimisers, items = (part["train"] for part in (trainer.codes, trainer.optimisers, trainer.items))
    means = []
    for epoch in range(1, epochs + 1):
        steps = []
        for both in zip(items.epoch(0, epoch, 0, 2), items.epoch(0, epoch, 1, 2), strict=True):
            optimisers.zero()
            looked_up = [trainer._looked_up(codes, part) for part in both]
            parts = [losses(model, z, part, epoch) for z, part in zip(looked_up, both, strict=True)]
            loss = sum(total(terms, trainer.config.lambdas) for terms in parts) / 2
            loss.backward()
            for decoder in (model.identity, model.deformation):
                torch.nn.utils.clip_grad_norm_(decoder.parameters(), trainer.config.grad_clip)
            optimisers.step()
            steps.append(number(loss))
        means.append(sum(steps) / len(steps))
    return trainer, means
