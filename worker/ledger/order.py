"""What travels from the ledger to the process that does the work, as plain JSON over a pipe."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worker.ledger.options import ReconstructionOptions


@dataclass(frozen=True)
class Order:
    """One reconstruction to do: all that the pipeline may know of the job."""

    job_id: str
    input_path: Path
    """Server-made name; the content decides what it is."""
    filename: str
    """What the user called it; metadata only."""
    media_type: str
    sha256: str
    options: ReconstructionOptions
    attempt: int = 1
    """1 for the first try."""
    previous_failure: str | None = None
    """Code of the last attempt's failure: after `out_of_memory` the pipeline should take a smaller budget."""
    device: str = "cpu"
    """`cpu` or `cuda[:i]`; the child chooses once and fills it in."""

    def on(self, device: str) -> "Order":
        """The same order for this device."""
        return replace(self, device=device)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "input_path": str(self.input_path), "options": self.options.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Order":
        return cls(
            **{
                **value,
                "input_path": Path(value["input_path"]),
                "options": ReconstructionOptions.from_json(value["options"]),
            }
        )
