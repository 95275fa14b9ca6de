"""The compose files and the Dockerfile, read the way the engines read them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RESET = object()
"""What `!reset` leaves behind until the files are laid over each other."""


class ComposeLoader(yaml.SafeLoader):
    """YAML with the merge tag of the Compose specification."""


ComposeLoader.add_constructor("!reset", lambda loader, node: RESET)


def compose(name: str) -> dict[str, Any]:
    """One compose file as it stands."""
    return yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=ComposeLoader)


def laid_over(below: Any, above: Any) -> Any:
    """Mappings merge, everything else replaces, `!reset` removes (Compose specification, 13: merge and override)."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    merged = {name: laid_over(value, above[name]) if name in above else value for name, value in below.items()}
    merged |= {name: value for name, value in above.items() if name not in below}
    return {name: value for name, value in merged.items() if value is not RESET}


def interpolated(value: Any) -> Any:
    """`${NAME:-default}` replaced by its default, `$$` by a dollar."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", json.dumps(value))
    assert not re.search(r"(?<!\$)\$\{", text), "a variable without a default"
    return json.loads(text.replace("$$", "$"))


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    stage: str
    word: str
    text: str
    """What follows the word, mounts and other flags included."""


def instructions(path: Path = ROOT / "Dockerfile.gpu") -> list[Instruction]:
    """In order; comments and empty lines are gone. The global ARGs belong to the stage ''."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found, stage = [], ""
    for line in filter(str.strip, joined.splitlines()):
        word, _, text = line.partition(" ")
        if word == "FROM":
            stage = text.split()[-1]
        found.append(Instruction(stage, word, text.strip()))
    return found
