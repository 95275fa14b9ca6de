"""Folders that a user can name for this machine, read from the environment: the same for every process."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


PUBLISHED = ("code_base", "training_supervision", "data", "experiment_dir", "data_tracking", "tracking_output")
"""The six of the published code, as fields of `Places`."""


def _published_file() -> Path:
    """Where the published code keeps them, one NAME="value" a line; the process's own environment goes first."""
    return Path.home() / ".config" / "mononphm" / ".env"


class Places(BaseSettings):
    """Environment variables `MONONPHM_<NAME>`. Those of the published code mean what they mean there; all optional."""

    model_config = SettingsConfigDict(env_prefix="MONONPHM_", extra="ignore")

    def __init__(self, **given: Any) -> None:
        super().__init__(_env_file=_published_file(), **given)

    models_dir: Path = Field(default_factory=lambda: _data_home() / "mononphm" / "models")
    """Models that this user added; those of the program lie in the program."""
    experiment_dir: Path | None = None
    """Published experiments, a folder each: where `mononphm models add NAME` looks, and `train published` writes."""
    code_base: Path | None = None
    """A copy of the published repository, for its assets."""
    training_supervision: Path | None = None
    """What `mononphm train supervision` writes and `train published` reads."""
    data: Path | None = None
    """NPHM-style scans: what `mononphm train supervision` reads."""
    data_tracking: Path | None = None
    """Prepared sequences: where `mononphm reconstruct NAME` looks for a folder."""
    tracking_output: Path | None = None
    """Results of the published program: where `mononphm evaluate NAME` looks for a folder."""

    def prepared(self, place: Path) -> Path:
        """`place`, or the folder of that name in `data_tracking` where only that exists."""
        return _below(self.data_tracking, place)

    def tracked(self, place: Path) -> Path:
        """`place`, or the folder of that name in `tracking_output` where only that exists."""
        return _below(self.tracking_output, place)


def _below(home: Path | None, place: Path) -> Path:
    if home is not None and not place.exists() and not place.is_absolute() and (home / place).exists():
        return home / place
    return place
