"""Several devices as one: gradients are averaged by hand, because codes have sparse ones and the loss needs the second
derivative. Started by `torchrun`; alone, everything here does nothing."""

import os

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn


class Devices:
    """This process among its peers."""

    def __init__(self, device: torch.device) -> None:
        self.ranks = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", local) if str(device) == "cuda" else device
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # where collectives look for their buffers
        if self.ranks > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def rows_of_all(self, rows: Int[Tensor, "rows"]) -> Int[Tensor, "all_rows"]:
        """The rows that any device uses: all must shrink the same ones before they look them up."""
        if self.ranks == 1:
            return rows
        found = [torch.empty_like(rows) for _ in range(self.ranks)]
        dist.all_gather(found, rows.contiguous())
        return torch.cat(found)

    def average(self, module: nn.Module) -> None:
        """Mean gradient over devices of every parameter. A sparse one becomes the union of all rows."""
        if self.ranks == 1:
            return
        for parameter in module.parameters():
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                parameter.grad = self._sparse(gradient)
            else:
                dist.all_reduce(gradient)
                gradient /= self.ranks

    def mean(self, value: Tensor) -> float:
        """A figure for the log."""
        if self.ranks > 1:
            value = value.clone()
            dist.all_reduce(value)
        return float(value) / self.ranks

    def _sparse(self, gradient: Tensor) -> Tensor:
        # Uncoalesced: every device has exactly its batch's rows, so that sizes agree and can be gathered.
        rows, values = gradient._indices()[0], gradient._values()
        all_rows = self.rows_of_all(rows)
        gathered = [torch.empty_like(values) for _ in range(self.ranks)]
        dist.all_gather(gathered, values.contiguous())
        together = torch.sparse_coo_tensor(all_rows[None], torch.cat(gathered) / self.ranks, gradient.shape)
        return together.coalesce()
