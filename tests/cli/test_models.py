"""`mononphm models`: a published checkpoint becomes a model that every part of the product knows, or exit code 4."""

import json

import pytest

from mononphm_cli import main
from service import registry as service_registry
from tests.core.io.test_checkpoint import Hostile
from tests.core.model.test_published import anchors_for
from tests.golden.checkpoints import document_of, random_states, small, write_experiment
from worker import models


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """A folder of published experiments and an empty one for the models of this user."""
    monkeypatch.setenv("MONONPHM_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MONONPHM_EXPERIMENT_DIR", str(tmp_path / "experiments"))
    return tmp_path / "experiments"


def experiment(folder, **more):
    config = small()
    write_experiment(folder, document_of(config), random_states(config, 1), anchors_for(config), **more)
    return config


def test_a_checkpoint_is_added_by_name_and_then_known_everywhere(experiments, capsys):
    """Command line, worker and HTTP registry read one folder; removing forgets it everywhere."""
    config = experiment(experiments / "pretrained_tiny")
    assert main.run(["models", "add", "pretrained_tiny", "--json", "--licence", "mine"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert (added["name"], added["model_type"], added["licence"]) == ("pretrained_tiny", "nphm", "mine")
    assert models.find("pretrained_tiny").d_geo == config.identity.d_geo
    shown = {info.name: info for info in service_registry.installed_models()}
    assert shown["pretrained_tiny"].latent_sizes["z_exp"] == config.deformation.d_expression
    assert shown["pretrained_tiny"].sha256 == added["sha256"]
    assert main.run(["models", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len({row.index(word) for row, word in zip(listed, ("own", "nphm"), strict=True)}) == 1  # a table
    assert main.run(["models", "verify", "pretrained_tiny"]) == 0
    assert main.run(["models", "remove", "pretrained_tiny"]) == 0
    assert "pretrained_tiny" not in {card.name for card in models.installed()}


def test_a_hostile_checkpoint_ends_with_exit_code_4_and_nothing_was_executed(experiments, tmp_path, capsys):
    """The contract's code for an asset that is not what it should be, with the reason."""
    marker = tmp_path / "executed"
    experiment(experiments / "evil", optimizer=Hostile(f"touch {marker}"))
    assert main.run(["models", "add", "evil"]) == 4
    assert "nothing of it was executed" in capsys.readouterr().err
    assert not marker.exists()
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


def test_a_missing_experiment_is_an_asset_and_a_taken_name_is_usage(experiments, capsys):
    """Exit codes tell a script which of the two to repair."""
    assert main.run(["models", "add", "nowhere"]) == 4
    assert "there is no experiment" in capsys.readouterr().err
    assert main.run(["models", "remove", "open-small"]) == 2
    assert "comes with the program" in capsys.readouterr().err
