"""From a published experiment folder to a registered model: where files are looked for, and what is written."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from mononphm_core.errors import AssetError, ChecksumMismatch, ConfigError
from mononphm_core.io import experiments, published, registry
from mononphm_core.io.checkpoint_process import Checkpoint
from mononphm_core.io.experiments import find_anchors, find_experiment, read_anchors
from mononphm_core.io.published import Request
from mononphm_core.io.weights import load_model
from mononphm_core.model.published import head_model
from tests.core.model.test_published import GLOBAL, anchors_for
from tests.golden.checkpoints import document_of, random_states, small, write_experiment

CONFIG = small()


@pytest.fixture
def experiment(tmp_path):
    """A published experiment `Mini Net` with epochs 1 and 12 below a folder of experiments."""
    folder = tmp_path / "experiments" / "Mini Net"
    for ckpt in (1, 12):
        write_experiment(folder, document_of(CONFIG), random_states(CONFIG, ckpt), anchors_for(CONFIG), ckpt)
    return folder


@pytest.fixture
def without_process(monkeypatch):
    """Trusted files, read in this process: the limited one has its own tests and costs seconds each."""

    def read(path, configuration, limits=None):
        import yaml

        saved = torch.load(path, weights_only=False)
        states = {section: saved[section] for section in ("id_decoder", "ex_decoder")}
        return Checkpoint(yaml.safe_load(configuration.read_text()), states, saved["epoch"], ("optimizer",), "ab" * 32)

    monkeypatch.setattr(published, "read_checkpoint", read)


def test_an_experiment_is_found_by_folder_file_or_name(experiment, tmp_path):
    """`exp_name` and `ckpt` as in the published code, and whatever the shell completes."""
    file = experiment / "checkpoints" / "checkpoint_epoch_12.tar"
    root = experiment.parent
    assert find_experiment(experiment, 12).checkpoint == file
    assert find_experiment(file) == dataclasses.replace(find_experiment(experiment, 12))
    named = find_experiment(tmp_path.__class__("Mini Net"), 12, root)
    assert (named.name, named.ckpt, named.checkpoint) == ("Mini Net", 12, file)


def test_the_released_epoch_or_else_the_last_one_is_taken_without_being_asked(experiment):
    """README commands of the published code say 2500; whoever trains a model of his own wants where it ended."""
    assert find_experiment(experiment).ckpt == 12
    (experiment / "checkpoints" / "checkpoint_epoch_1.tar").rename(
        experiment / "checkpoints" / "checkpoint_epoch_2500.tar"
    )
    (experiment / "checkpoints" / "checkpoint_epoch_12.tar").rename(
        experiment / "checkpoints" / "checkpoint_epoch_3000.tar"
    )
    assert find_experiment(experiment).ckpt == 2500
    with pytest.raises(AssetError, match=r"no checkpoints/checkpoint_epoch_1[.]tar \(epochs there: 2500, 3000\)"):
        find_experiment(experiment, 1)
    for path in (experiment / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(AssetError, match=r"checkpoint_epoch_2500[.]tar \(epochs there: none\)"):
        find_experiment(experiment)


def test_what_is_missing_is_named_with_the_next_step(experiment, tmp_path):
    """Four ways to hold it wrong."""
    with pytest.raises(AssetError, match="MONONPHM_EXPERIMENT_DIR is not set"):
        find_experiment(tmp_path / "nowhere")
    with pytest.raises(AssetError, match="nor in"):
        find_experiment(tmp_path.__class__("unheard"), experiments=tmp_path)
    (experiment / "configs.yaml").unlink()
    with pytest.raises(AssetError, match="has no configs.yaml"):
        find_experiment(experiment, 12)
    with pytest.raises(AssetError, match="no configs.yaml lies beside"):
        find_experiment(experiment / "checkpoints" / "checkpoint_epoch_12.tar")


def test_anchors_are_found_where_they_usually_lie(experiment, tmp_path):
    """In the folder, beside it, in an assets folder, in the assets of the published repository, or as given."""
    found = find_experiment(experiment, 12)
    inside = experiment / "anchors_21.npy"
    assert find_anchors(found, 21, None) == inside
    for place in (experiment / "assets", experiment.parent, experiment.parent / "assets", tmp_path / "repo"):
        place.mkdir(exist_ok=True)
        moved = inside.rename(place / inside.name)
        assert find_anchors(found, 21, None, [tmp_path / "repo"]) == moved
        inside = moved
    with pytest.raises(AssetError, match=r"anchors_21.npy is not in Mini Net.*--anchors FILE"):
        find_anchors(found, 21, None)
    assert find_anchors(found, 21, inside) == inside
    with pytest.raises(AssetError, match="is missing"):
        find_anchors(found, 21, tmp_path / "none.npy")


@pytest.mark.parametrize(
    "value",
    [np.zeros((5, 2)), np.zeros(3), np.full((5, 3), np.nan), np.array([{"a": 1}], object), np.zeros((5, 3), int)],
    ids=["two columns", "one row", "not finite", "objects", "whole numbers"],
)
def test_a_file_that_is_no_table_of_anchors_is_refused(tmp_path, value):
    """`.npy` may hold pickled objects; none is loaded."""
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    with pytest.raises(AssetError, match=r"a[.]npy"):
        read_anchors(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(b"not numpy")
    with pytest.raises(AssetError, match="no .npy table"):
        read_anchors(tmp_path / "a.npy")


def test_a_header_that_claims_a_huge_table_costs_nothing(tmp_path):
    """The claim is compared with the file before memory is asked for."""
    np.save(tmp_path / "a.npy", np.zeros((5, 3)))
    raw = (tmp_path / "a.npy").read_bytes().replace(b"(5, 3), }   ", b"(9**9, 3), }"[:12])
    (tmp_path / "a.npy").write_bytes(raw.replace(b"(5, 3), }        ", b"(99999999, 3), } "))
    with pytest.raises(AssetError):
        read_anchors(tmp_path / "a.npy")


def test_anchors_with_a_leading_batch_of_one_are_the_same(tmp_path):
    """The published loader keeps such a dimension in memory; some copies have it in the file."""
    table = np.arange(15.0).reshape(5, 3)
    np.save(tmp_path / "a.npy", table[None])
    assert np.array_equal(read_anchors(tmp_path / "a.npy").numpy(), table)


@pytest.mark.parametrize("config", [CONFIG, GLOBAL], ids=["nphm", "global"])
def test_a_converted_model_has_the_numbers_of_its_checkpoint(tmp_path, without_process, config):
    """add -> registry -> load: every parameter bit for bit, and a card that says where it came from."""
    states, anchors = random_states(config, 7), anchors_for(config)
    folder = write_experiment(tmp_path / "Exp_A", document_of(config), states, anchors)
    card = published.add(Request(folder, licence="by courtesy"), tmp_path / "models")
    assert (card.name, card.version, card.licence) == ("exp_a", "epoch 2500", "by courtesy")
    assert card == registry.find_model("exp_a", tmp_path / "models")
    assert card.model_type == ("nphm" if config is CONFIG else "global")
    assert card.d_geo == config.identity.d_geo
    registry.verify(card)
    model = load_model(card.path, card.sha256)
    assert model.config == config
    expected = head_model(config, states, anchors).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    said = json.loads((card.path.parent / "card.json").read_text())["published"]
    assert (said["exp_name"], said["ckpt"], said["entries_not_read"]) == ("Exp_A", 2500, ["optimizer"])
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["exp_a"]


def test_a_converted_folder_is_carried_elsewhere_and_added_there(experiment, tmp_path, without_process):
    """`models convert` on one machine, `models add` on another; a changed byte is noticed."""
    card = published.convert(Request(experiment, 12), tmp_path / "out")
    assert card.name == "mini-net"
    added = published.add(Request(tmp_path / "out"), tmp_path / "models", "other")
    assert (added.name, added.sha256) == ("other", card.sha256)
    raw = bytearray(card.path.read_bytes())
    raw[-1] ^= 1
    card.path.write_bytes(raw)
    with pytest.raises(ChecksumMismatch):
        published.add(Request(tmp_path / "out"), tmp_path / "models", "third")
    with pytest.raises(ConfigError, match="not empty"):
        published.convert(Request(experiment, 12), tmp_path / "out")


def test_names_are_free_safe_and_can_be_given_back(experiment, tmp_path, without_process):
    """A name becomes a folder and a job's option."""
    models = tmp_path / "models"
    published.add(Request(experiment, 12), models, "mine")
    with pytest.raises(ConfigError, match="there already"):
        published.add(Request(experiment, 12), models, "mine")
    with pytest.raises(ConfigError, match="there already"):
        published.add(Request(experiment, 12), models, registry.DEFAULT_MODEL)
    with pytest.raises(ConfigError, match="no model name"):
        published.add(Request(experiment, 12), models, "../mine")
    published.remove("mine", models)
    assert list(models.iterdir()) == []
    with pytest.raises(ConfigError, match="was added"):
        published.remove("mine", models)
    with pytest.raises(ConfigError, match="comes with the program"):
        published.remove(registry.DEFAULT_MODEL, models)


def test_a_failed_conversion_leaves_nothing_behind(experiment, tmp_path, without_process):
    """Half a model in the registry would be found by every later command."""
    np.save(experiment / "anchors_21.npy", np.zeros((20, 3)))
    with pytest.raises(AssetError, match="21 finite points"):
        published.add(Request(experiment, 12), tmp_path / "models")
    assert not (tmp_path / "models").exists() or list((tmp_path / "models").iterdir()) == []


def test_the_release_epoch_is_the_one_of_the_published_commands():
    """Their README says `--ckpt 2500`."""
    assert experiments.RELEASED_CKPT == 2500
