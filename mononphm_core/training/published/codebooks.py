"""One code a person and one a scan, learned with the networks (an auto-decoder). Rows start at zero.

Rows that are used are first brought back to a norm of at most 1. State dicts have the published names.
"""

import torch
import torch.nn as nn
from jaxtyping import Float, Int
from torch import Tensor

MAX_NORM = 1.0


class Codebook(nn.Module):
    """A table of codes with sparse gradients: only rows of the batch change, and only their optimiser state."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, width, sparse=True)
        nn.init.zeros_(self.embedding.weight)

    def renormalise(self, rows: Int[Tensor, "used"]) -> None:
        """Shrink `rows` (on every device the same ones) whose norm is above `MAX_NORM`."""
        with torch.no_grad():
            torch.embedding_renorm_(self.embedding.weight, rows.unique(), MAX_NORM, 2.0)

    def forward(self, rows: Int[Tensor, "batch"]) -> Float[Tensor, "batch width"]:
        found: Tensor = self.embedding(rows)
        return found


class LatentCodes(nn.Module):
    """geo and app: a row a person; exp: a row a scan."""

    def __init__(self, people: int, scans: int, d_geo: int, d_app: int, d_exp: int) -> None:
        super().__init__()
        self.codebook = nn.ModuleDict(
            {"geo": Codebook(people, d_geo), "exp": Codebook(scans, d_exp), "app": Codebook(people, d_app)}
        )

    def table(self, name: str) -> Codebook:
        """`geo`, `exp` or `app`."""
        found = self.codebook[name]
        assert isinstance(found, Codebook)
        return found
