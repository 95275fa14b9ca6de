"""What travels from the ledger to the process that does the work, as plain JSON over a pipe."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worker.ledger.options import ReconstructionOptions
from worker.ledger.records import PartSpec


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
    part: PartSpec | None = None
    """Which part of a divided job this is; None: the whole."""
    materials: Path | None = None
    """Where the results of finished parts lie that this order works on: `<round>.<number>/<name>`."""

    def on(self, device: str) -> "Order":
        """The same order for this device."""
        return replace(self, device=device)

    def to_json(self) -> dict[str, Any]:
        paths = {"input_path": str(self.input_path), "materials": str(self.materials) if self.materials else None}
        part = self.part.to_json() if self.part else None
        return {**asdict(self), **paths, "options": self.options.to_json(), "part": part}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Order":
        return cls(
            **{
                **value,
                "input_path": Path(value["input_path"]),
                "options": ReconstructionOptions.from_json(value["options"]),
                "part": PartSpec.from_json(value["part"]) if value.get("part") else None,
                "materials": Path(value["materials"]) if value.get("materials") else None,
            }
        )
