"""How distances become figures. Millimetres of the truth throughout."""

import numpy as np
from jaxtyping import Float

LIMITS_MM = (1.0, 1.5, 2.5, 5.0)
Figures = dict[str, float]


def of_distances(distances: Float[np.ndarray, "points"]) -> Figures:
    """Mean, median, 90th and 95th percentile, and the shares within `LIMITS_MM`."""
    found = {
        "mean": float(distances.mean()),
        "median": float(np.median(distances)),
        "p90": float(np.percentile(distances, 90)),
        "p95": float(np.percentile(distances, 95)),
    }
    return found | {f"within_{limit:g}": float((distances <= limit).mean()) for limit in LIMITS_MM}


def mean_of(rows: list[Figures | None]) -> Figures | None:
    """Figure by figure over the frames that have it; frames count equally."""
    known = [row for row in rows if row is not None]
    return {name: float(np.mean([row[name] for row in known])) for name in known[0]} if known else None
