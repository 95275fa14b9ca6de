"""Points of the template as arrays for least squares, and which blendshapes are pairs."""

from dataclasses import dataclass

import numpy as np

from mononphm_core.model.template import TemplateHead


@dataclass(frozen=True)
class Points:
    """Some points of the template as linear functions of the codes."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray

    @staticmethod
    def of(template: TemplateHead, group: str) -> "Points":
        """A named group, with the whole identity code."""
        rows = template.rows(group)
        nodes = (template.local_anchor.max() + 1).item()
        return Points(
            template.mean[rows].double().numpy(),
            template.identity_jacobian(group, int(max(nodes, 65))).numpy(),
            template.expression_basis[rows].double().numpy(),
        )

    def seeking(self, lift: np.ndarray, start: np.ndarray) -> "Points":
        """In terms of identity directions, from a start."""
        return Points(self.mean + self.identity @ start, (self.identity @ lift).astype(np.float64), self.expression)

    def some(self, rows: np.ndarray) -> "Points":
        """A few of the points."""
        return Points(self.mean[rows], self.identity[rows], self.expression[rows])


def symmetric_pairs(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the left and right members of paired blendshapes; gaze pairs are left out: eyes turn together."""
    place = {name: i for i, name in enumerate(names)}
    left = [i for n, i in place.items() if n.endswith("_L") and n[:-1] + "R" in place and not _one_sided(n)]
    return np.array(left, int), np.array([place[names[i][:-1] + "R"] for i in left], int)


def _one_sided(name: str) -> bool:
    return name.startswith(("eyeLookIn", "eyeLookOut"))
