"""The published training loop: epochs over scans, codes and networks learned together, a checkpoint now and then.

Resumable from the last checkpoint: data and its order depend on (seed, epoch) alone, so a run that was interrupted
gives the same bits on the CPU as one that was not. `torchrun` makes it use several devices.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mononphm_core.errors import ConfigError, Diverged, InputError
from mononphm_core.model.head import HeadModel
from mononphm_core.model.published import model_config
from mononphm_core.training.published import checkpoint
from mononphm_core.training.published.codebooks import LatentCodes
from mononphm_core.training.published.config import PublishedTraining, training_of
from mononphm_core.training.published.devices import Devices
from mononphm_core.training.published.files import Files, find_scans
from mononphm_core.training.published.items import Items, Split, splits
from mononphm_core.training.published.losses import Batch, Codes, losses, total
from mononphm_core.training.published.optimisers import Optimisers
from mononphm_core.training.published.scans import mean_anchors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What is not in the configuration."""

    epochs: int = 2500
    """The release's; a larger number continues a finished run."""
    seed: int = 0
    exclude: frozenset[int] = frozenset()
    """Test subjects."""
    anchors: Path | None = None
    """Mean anchors; None: the mean over the neutral scans."""


def train(
    data: Path, run: Path, document: Mapping[str, Any], options: RunOptions, device: torch.device
) -> dict[str, float]:
    """Train until `options.epochs`; returns the mean terms of the last epoch. Continues the run that is in `run`."""
    config = training_of(document)
    sizes = model_config(document, "nphm")
    devices = Devices(device)
    try:
        train_split, val_split = splits(find_scans(data), options.exclude)
        if not train_split.scans:
            raise InputError(f"{data} has no scan of a training subject")
        known = None if options.anchors is None else np.load(options.anchors, allow_pickle=False)
        anchors = mean_anchors(data) if known is None else known
        if anchors.shape != (sizes.identity.anchors, 3):
            raise ConfigError(f"the anchors are {anchors.shape}, the configuration says {sizes.identity.anchors}")
        torch.manual_seed(options.seed)  # the networks' first weights: the same on every device
        model = HeadModel(sizes, torch.from_numpy(np.asarray(anchors))).to(devices.device)
        trainer = Trainer(model, config, devices, Files(data), train_split, val_split)
        begin = checkpoint.last_epoch(run)
        if begin is not None:
            trainer.load(checkpoint.checkpoint_path(run, begin))
            log.info("continuing after epoch %d", begin)
        elif devices.rank == 0:
            checkpoint.write_run(run, document, anchors, train_split)
        figures: dict[str, float] = {}
        for epoch in range((begin or 0) + 1, options.epochs + 1):
            figures = trainer.epoch(options.seed, epoch)
            if devices.rank == 0:
                with (run / "log.jsonl").open("a", encoding="utf-8") as out:
                    out.write(json.dumps({"epoch": epoch, **figures}) + "\n")
                if epoch == 1 or epoch % config.ckpt_interval == 0 or epoch == options.epochs:
                    trainer.save(run, epoch)
        return figures
    finally:
        devices.close()


class Trainer:
    """Networks, codes and optimisers of a run."""

    def __init__(
        self, model: HeadModel, config: PublishedTraining, devices: Devices, files: Files, train: Split, val: Split
    ) -> None:
        self.model, self.config, self.devices = model, config, devices
        self.items, self.codes, self.optimisers = {}, {}, {}
        for name, split in (("train", train), ("val", val)):
            if not split.scans:
                continue
            sizes = model.config
            codes = LatentCodes(
                len(split.people),
                len(split.scans),
                sizes.identity.d_geo,
                sizes.identity.d_app,
                sizes.deformation.d_expression,
            ).to(devices.device)
            self.items[name] = Items(files, split, config, sizes.identity.anchors)
            self.codes[name] = codes
            self.optimisers[name] = Optimisers(model if name == "train" else None, codes, config)

    def epoch(self, seed: int, epoch: int) -> dict[str, float]:
        """Train once over all scans, then fit the validation codes once; the epoch's mean terms of both."""
        figures = self._pass("train", seed, epoch)
        if "val" in self.items:
            self.model.requires_grad_(False)
            figures |= {f"val_{name}": value for name, value in self._pass("val", seed + 1, epoch).items()}
            self.model.requires_grad_(True)
        return figures

    def save(self, run: Path, epoch: int) -> Path:
        """One checkpoint."""
        return checkpoint.save(run, epoch, self.model, self.codes, self.optimisers)

    def load(self, path: Path) -> int:
        """Go on from one."""
        return checkpoint.load(path, self.model, self.codes, self.optimisers, self.devices.device)

    def _pass(self, split: str, seed: int, epoch: int) -> dict[str, float]:
        self.optimisers[split].scale_rates(self.config.rate(epoch))
        sums: dict[str, float] = {}
        steps = 0
        for batch in self.items[split].epoch(seed, epoch, self.devices.rank, self.devices.ranks):
            terms = self._step(split, batch.to(self.devices.device), epoch)
            steps += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + self.devices.mean(value)
        return {name: value / steps for name, value in sums.items()}

    def _step(self, split: str, batch: Batch, epoch: int) -> dict[str, Tensor]:
        optimisers, codes = self.optimisers[split], self.codes[split]
        optimisers.zero()
        terms = losses(self.model, self._looked_up(codes, batch), batch, epoch)
        loss = total(terms, self.config.lambdas)
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise Diverged(epoch, name)
        loss.backward()
        self.devices.average(codes)
        if split == "train":
            self.devices.average(self.model)
            for decoder in (self.model.identity, self.model.deformation):
                torch.nn.utils.clip_grad_norm_(decoder.parameters(), self.config.grad_clip)
        optimisers.step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _looked_up(self, codes: LatentCodes, batch: Batch) -> Codes:
        rows = {"geo": batch.person, "app": batch.person, "exp": batch.scan}
        for name, used in rows.items():
            codes.table(name).renormalise(self.devices.rows_of_all(used))
        found = {name: codes.table(name)(used) for name, used in rows.items()}
        return Codes(found["geo"], found["app"], found["exp"])
