"""Published experiments become registered models: read them safely, convert them, write the card."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mononphm_core.errors import ConfigError
from mononphm_core.io.atomic import write_bytes
from mononphm_core.io.checkpoint_process import Checkpoint, CheckpointLimits, read_checkpoint
from mononphm_core.io.experiments import Experiment, find_anchors, find_experiment, read_anchors
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.io.registry import BUNDLED, CARD, ModelCard, read_card
from mononphm_core.io.weights import load_model, save_model
from mononphm_core.model.head import HeadModel
from mononphm_core.model.published import ModelType, ambient_of, head_model, model_config, model_type_of

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
LICENCE = (
    "not stated: the published code's licence does not cover its checkpoints, and what was trained on the NPHM data "
    "set falls under that data set's terms; ask whoever gave you this file"
)
"""Of a converted checkpoint; `--licence` says better where it is known."""


@dataclass(frozen=True)
class Request:
    """What the user said about a checkpoint to convert."""

    place: Path
    ckpt: int | None = None
    anchors: Path | None = None
    model_type: ModelType | None = None
    licence: str | None = None
    experiments: Path | None = None
    """Folder in which an experiment may be named (MONONPHM_EXPERIMENT_DIR)."""
    assets: tuple[Path, ...] = ()
    """Further folders in which the anchors may lie."""


def read_published(request: Request, limits: CheckpointLimits | None = None) -> tuple[HeadModel, dict[str, Any]]:
    """The model, and what its card will say of it. AssetError for everything that does not fit."""
    experiment = find_experiment(request.place, request.ckpt, request.experiments)
    read = read_checkpoint(experiment.checkpoint, experiment.configuration, limits)
    kind = request.model_type or model_type_of(read.configuration)
    config = model_config(read.configuration, kind, ambient_of(read.states))
    anchors = find_anchors(experiment, config.identity.anchors, request.anchors, request.assets)
    model = head_model(config, read.states, read_anchors(anchors))
    return model, _facts(experiment, read, kind, model, sha256_of_file(anchors), request.licence)


def _facts(
    experiment: Experiment, read: Checkpoint, kind: str, model: HeadModel, anchors_sha256: str, licence: str | None
) -> dict[str, Any]:
    epoch = experiment.ckpt if experiment.ckpt is not None else read.epoch
    identity, deformation = model.config.identity, model.config.deformation
    return {
        "version": f"epoch {epoch}" if epoch is not None else "of unknown epoch",
        "licence": licence or LICENCE,
        "latent_sizes": {"z_geo": identity.d_geo, "z_app": identity.d_app, "z_exp": deformation.d_expression},
        "anchors": identity.anchors,
        "published": {
            "model_type": kind,
            "exp_name": experiment.name,
            "ckpt": epoch,
            "checkpoint_sha256": read.sha256,
            "anchors_sha256": anchors_sha256,
            "configuration": read.configuration.get("decoder"),
            "entries_not_read": list(read.ignored),
        },
    }


def convert(request: Request, target: Path, name: str | None = None) -> ModelCard:
    """Write `model.safetensors` and `card.json` into the new folder `target`; nothing remains of a failed attempt."""
    model, facts = read_published(request)
    wanted = checked_name(name or suggested_name(facts["published"]["exp_name"]))
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
        made = Path(scratch) / "model"
        made.mkdir(mode=0o755)
        sha256 = save_model(model, made / "model.safetensors", half=False)
        card = {"name": wanted, "file": "model.safetensors", "sha256": sha256, **facts}
        write_bytes(made / CARD, (json.dumps(card, indent=2) + "\n").encode())
        if target.exists():
            target.rmdir()
        made.rename(target)
    return read_card(target / CARD)


def add(request: Request, models: Path, name: str | None = None) -> ModelCard:
    """Convert and register below `models`, a folder of the user's. ConfigError where the name is taken.

    A folder that `convert` made is registered as it is, after its checksum was compared.
    """
    if (request.place / CARD).is_file():
        return _adopt(request.place, models, name)
    experiment = find_experiment(request.place, request.ckpt, request.experiments)
    wanted = checked_name(name or suggested_name(experiment.name))
    _free(wanted, models)
    return convert(request, models / wanted, wanted)


def _adopt(place: Path, models: Path, name: str | None) -> ModelCard:
    card = read_card(place / CARD)
    wanted = checked_name(name or card.name)
    _free(wanted, models)
    load_model(card.path, card.sha256)
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".adding-") as scratch:
        made = Path(scratch) / "model"
        made.mkdir(mode=0o755)
        shutil.copyfile(card.path, made / "model.safetensors")
        said = json.loads((place / CARD).read_text("utf-8")) | {"name": wanted, "file": "model.safetensors"}
        write_bytes(made / CARD, (json.dumps(said, indent=2) + "\n").encode())
        made.rename(models / wanted)
    return read_card(models / wanted / CARD)


def remove(name: str, models: Path) -> None:
    """Forget a model of the user's. ConfigError for one that comes with the program or is not there."""
    folder = models / checked_name(name)
    if not (folder / CARD).is_file():
        bundled = (BUNDLED / name / CARD).is_file()
        raise ConfigError(f"{name} comes with the program and stays" if bundled else f"no model {name!r} was added")
    shutil.rmtree(folder)


def checked_name(name: str) -> str:
    """A name that is safe as a folder and as a job's option."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no model name: lower-case letters, digits, '.', '_' and '-', at most 64")
    return name


def suggested_name(experiment: str) -> str:
    """The experiment's name with what a model's name may not have replaced."""
    return re.sub(r"[^a-z0-9._-]+", "-", experiment.lower()).strip("-._")[:64] or "published"


def _free(name: str, models: Path) -> None:
    for folder in (BUNDLED, models):
        if (folder / name).exists():
            raise ConfigError(f"a model named {name!r} is there already; choose another by --name, or remove that one")
