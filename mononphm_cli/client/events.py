"""Server-Sent Events as records."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mononphm_cli.client.models import TERMINAL


@dataclass(frozen=True)
class Event:
    """One line of a job's story."""

    id: int
    type: str
    """state, progress, warning or artifact."""
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.type == "state" and self.data.get("state") in {*TERMINAL, "deleted"}


def events_in(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream; comments and what is cut off at its end are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif {"id", "event", "data"} <= set(fields):
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}
