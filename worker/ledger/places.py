"""Folders that a user can name for this machine, read from the environment: the same for every process."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


class Places(BaseSettings):
    """Environment variables `MONONPHM_<NAME>`. Those of the published code mean what they mean there; all optional."""

    model_config = SettingsConfigDict(env_prefix="MONONPHM_", extra="ignore")

    models_dir: Path = Field(default_factory=lambda: _data_home() / "mononphm" / "models")
    """Models that this user added; those of the program lie in the program."""
    experiment_dir: Path | None = None
    """Published experiments, a folder each: where `mononphm models add NAME` looks."""
    code_base: Path | None = None
    """A copy of the published repository, for its assets."""
