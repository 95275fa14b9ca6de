"""The three optimisers of the published training: AdamW for the networks, SparseAdam for the two kinds of codes."""

from collections.abc import Mapping
from typing import Any

import torch

from mononphm_core.model.head import HeadModel
from mononphm_core.training.published.codebooks import LatentCodes
from mononphm_core.training.published.config import PublishedTraining


class Optimisers:
    """Those of one split. Validation has none for the networks, which it leaves as they are."""

    def __init__(self, model: HeadModel | None, codes: LatentCodes, config: PublishedTraining) -> None:
        people = [codes.table("geo").embedding.weight, codes.table("app").embedding.weight]
        self.rates = {"lat": config.lr_lat, "lat_expr": config.lr_lat_expr}
        self.all: dict[str, torch.optim.Optimizer] = {
            "lat": torch.optim.SparseAdam(people, lr=config.lr_lat),
            "lat_expr": torch.optim.SparseAdam([codes.table("exp").embedding.weight], lr=config.lr_lat_expr),
        }
        if model is not None:
            self.rates["networks"] = config.lr
            self.all["networks"] = torch.optim.AdamW(
                model.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False
            )

    def scale_rates(self, factor: float) -> None:
        """Every learning rate is its start times `factor`."""
        for name, optimiser in self.all.items():
            for group in optimiser.param_groups:
                group["lr"] = self.rates[name] * factor

    def zero(self) -> None:
        """Forget gradients."""
        for optimiser in self.all.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move everything that has a gradient."""
        for optimiser in self.all.values():
            optimiser.step()

    def state(self, suffix: str) -> dict[str, Any]:
        """Under the published names; `suffix` is "" or "_val"."""
        found: dict[str, Any] = {
            f"optimizer_lat{suffix}": (self.all["lat"].state_dict(),),
            f"optimizer_lat{suffix}_expr": self.all["lat_expr"].state_dict(),
        }
        if "networks" in self.all:
            found["optimizer"] = self.all["networks"].state_dict()
        return found

    def load(self, saved: Mapping[str, Any], suffix: str) -> None:
        """The inverse of `state`."""
        self.all["lat"].load_state_dict(saved[f"optimizer_lat{suffix}"][0])
        self.all["lat_expr"].load_state_dict(saved[f"optimizer_lat{suffix}_expr"])
        if "networks" in self.all:
            self.all["networks"].load_state_dict(saved["optimizer"])
