"""The input of an animation: what is needed of two finished jobs, in one archive. Deleting them changes nothing."""

from collections.abc import Sequence

from worker.ledger.records import Artifact

MEDIA_TYPE = "application/vnd.mononphm.animation+zip"
ROOT = "animation"
IDENTITY, EXPRESSIONS = "identity", "expressions"

IDENTITY_FILES = ("manifest.json", "identity.npz")
EXPRESSION_FILES = ("manifest.json", "expressions.npz", "cameras.json")
"""What must be there; meshes come along where there are some, for the preview, and the person's colours."""
COLOURS = "neutral.glb"


def wanted_of(artifacts: Sequence[Artifact], part: str) -> list[Artifact]:
    """The files of a job that an animation takes. Raises KeyError, with the name, for one that was not delivered."""
    by_name = {item.name: item for item in artifacts}
    needed = IDENTITY_FILES if part == IDENTITY else EXPRESSION_FILES
    meshes = [item for item in artifacts if part == EXPRESSIONS and item.role == "mesh"]
    colours = [item for item in artifacts if part == IDENTITY and item.name == COLOURS]
    return [*(by_name[name] for name in needed), *colours, *meshes]
