"""A job of two finished ones: unpack what was bundled of them, and let one head do what the other did."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

from mononphm_core.errors import UnreadableMedia
from mononphm_core.types import OnStep
from worker import transfer
from worker.ledger import bundle
from worker.ledger.order import Order
from worker.ledger.storage import safe_name


def run(order: Order, workspace: Path, on_step: OnStep) -> dict[str, Any]:
    """Make the animation of `order.input_path` in `workspace`; returns the manifest. Errors: mononphm_core.errors."""
    sources = workspace / "sources"
    unpack(order.input_path, sources)
    root = sources / bundle.ROOT
    try:
        return transfer.run(
            root / bundle.IDENTITY, root / bundle.EXPRESSIONS, workspace, order.options, on_step, order.device
        )
    finally:
        shutil.rmtree(sources)


def unpack(archive: Path, folder: Path) -> None:
    """Every file of the bundle below `folder`. The service made it, and still no name may leave the folder."""
    try:
        with zipfile.ZipFile(archive) as bundled:
            for entry in bundled.infolist():
                target = folder / safe_name(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with bundled.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, ValueError, FileExistsError) as error:
        raise UnreadableMedia("the bundle of the two reconstructions is damaged; ask for it again") from error
