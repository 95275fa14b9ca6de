"""Points of the template as arrays for least squares, and which blendshapes are pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.model.template import TemplateHead


@dataclass(frozen=True)
class Points:
    """Some points of the template as linear functions of parameters: x_posed = mean + identity s + expression z_exp."""

    mean: Float[np.ndarray, "points 3"]
    """At s = 0 and z_exp = 0."""
    identity: Float[np.ndarray, "points 3 shared"]
    expression: Float[np.ndarray, "points 3 d_exp"]

    @staticmethod
    def of(template: TemplateHead, group: str) -> "Points":
        """A named group, with the whole identity code as `s`."""
        rows = template.rows(group)
        nodes = (template.local_anchor.max() + 1).item()
        expression = template.expression_basis[rows].double().cpu().numpy()
        return Points(
            template.mean[rows].double().cpu().numpy() - expression @ template.z_canonical.double().cpu().numpy(),
            template.identity_jacobian(group, int(max(nodes, 65))).double().cpu().numpy(),
            expression,
        )

    def seeking(self, lift: Float[np.ndarray, "d_geo directions"], start: Float[np.ndarray, "d_geo"]) -> "Points":
        """In terms of identity directions, from a start."""
        return Points(self.mean + self.identity @ start, np.ascontiguousarray(self.identity @ lift), self.expression)

    def some(self, rows: Int[np.ndarray, "chosen"]) -> "Points":
        """A few of the points."""
        return Points(self.mean[rows], self.identity[rows], self.expression[rows])

    def posed(
        self, s: Float[np.ndarray, "shared"], z_exp: Float[np.ndarray, "frames d_exp"]
    ) -> Float[np.ndarray, "frames points 3"]:
        """Posed head space, in every frame."""
        still = self.mean + self.identity @ s
        points, _, d_exp = self.expression.shape
        moved: np.ndarray = still + (z_exp @ self.expression.reshape(-1, d_exp).T).reshape(len(z_exp), points, 3)
        return moved


def symmetric_pairs(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the left and right members of paired blendshapes; gaze pairs are left out: eyes turn together."""
    place = {name: i for i, name in enumerate(names)}
    left = [i for n, i in place.items() if n.endswith("_L") and n[:-1] + "R" in place and not _one_sided(n)]
    return np.array(left, int), np.array([place[names[i][:-1] + "R"] for i in left], int)


def _one_sided(name: str) -> bool:
    return name.startswith(("eyeLookIn", "eyeLookOut"))
