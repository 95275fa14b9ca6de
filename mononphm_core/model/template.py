"""The linear template: where named points of the skin are, for any identity and expression, without asking the field.

x_canonical[v] = mean[v] + global[v] z_global + sum over anchors a of share[v, a] (local[a, v] z_a)
x_posed[v]     = x_canonical[v] + expression[v] (z_exp - z_canonical)

Codes of a prior that carries a template are *defined* by it (whitened principal components of whole heads, then of what
remains around each anchor), so this is exact for the prior's own heads up to the truncation that the model card states.
"""

import numpy as np
import torch
import torch.nn as nn
from jaxtyping import Float, Int
from torch import Tensor


class TemplateHead(nn.Module):
    """Landmark tables of one prior. Buffers, not parameters: nothing here is optimised in tracking."""

    mean: Tensor
    global_basis: Tensor
    local_basis: Tensor
    local_anchor: Tensor
    expression_basis: Tensor
    z_canonical: Tensor
    surface_faces: Tensor
    """Triangles of the `surface` group."""
    geo_span: Tensor
    """Codes of plausible people: z_geo = geo_span @ u with u standard normal. Neighbouring local parts move together in
    it, as they do in people; free local parts would let a picture's noise sculpt the head."""
    app_span: Tensor
    """The same for z_app."""
    landmark_spread_mm: Tensor
    """How far each of the 478 detector points wanders on the skin."""

    def __init__(
        self,
        mean: Float[Tensor, "points 3"],
        global_basis: Float[Tensor, "points 3 d_global"],
        local_basis: Float[Tensor, "points near 3 d_local"],
        local_anchor: Int[Tensor, "points near"],
        expression_basis: Float[Tensor, "points 3 d_exp"],
        z_canonical: Float[Tensor, "d_exp"],
        surface_faces: Int[Tensor, "faces 3"],
        landmark_spread_mm: Float[Tensor, "landmarks"],
        geo_span: Float[Tensor, "d_geo directions_geo"],
        app_span: Float[Tensor, "d_app directions_app"],
        groups: dict[str, tuple[int, int]],
    ) -> None:
        super().__init__()
        for name, value in {
            "mean": mean,
            "global_basis": global_basis,
            "local_basis": local_basis,
            "expression_basis": expression_basis,
            "z_canonical": z_canonical,
            "geo_span": geo_span,
            "app_span": app_span,
        }.items():
            self.register_buffer(name, value.float())
        self.register_buffer("local_anchor", local_anchor.long())
        self.register_buffer("surface_faces", surface_faces.long())
        self.register_buffer("landmark_spread_mm", landmark_spread_mm.float())
        self.groups = groups
        """Named ranges of points: `mediapipe478`, `ibug68`, `anchors65`, `surface`."""

    @property
    def d_global(self) -> int:
        """Length of the global part of the identity code."""
        return int(self.global_basis.shape[-1])

    @property
    def d_local(self) -> int:
        """Length of one local part."""
        return int(self.local_basis.shape[-1])

    def mean_landmarks(self) -> Float[np.ndarray, "478 3"]:
        """The mean head's dense landmarks with a neutral face: what first poses are measured against."""
        no_one = self.mean.new_zeros(1, self.geo_span.shape[0])
        return self.posed(no_one, 0 * self.z_canonical[None], "mediapipe478")[0].cpu().numpy()

    def rows(self, group: str) -> slice:
        """The named range of points."""
        return slice(*self.groups[group])

    def canonical(self, z_geo: Float[Tensor, "people d_geo"], group: str) -> Float[Tensor, "people points 3"]:
        """Points on the canonical head. Linear in `z_geo`."""
        rows = self.rows(group)
        z_global = z_geo[:, : self.d_global]
        z_local = z_geo[:, self.d_global :].unflatten(1, (-1, self.d_local))
        x = self.mean[rows] + torch.einsum("vcg,pg->pvc", self.global_basis[rows], z_global)
        return x + torch.einsum("vncl,pvnl->pvc", self.local_basis[rows], _parts(z_local, self.local_anchor[rows]))

    def posed(
        self, z_geo: Float[Tensor, "people d_geo"], z_exp: Float[Tensor, "people d_exp"], group: str
    ) -> Float[Tensor, "people points 3"]:
        """Points with expression, in posed space. Linear in both codes."""
        offset = torch.einsum("vce,pe->pvc", self.expression_basis[self.rows(group)], z_exp - self.z_canonical)
        return self.canonical(z_geo, group) + offset

    def identity_jacobian(self, group: str, nodes: int) -> Float[Tensor, "points 3 d_geo"]:
        """d x / d z_geo, constant."""
        rows = self.rows(group)
        basis, anchor = self.local_basis[rows], self.local_anchor[rows]
        dense = basis.new_zeros(basis.shape[0], nodes, 3, self.d_local)
        index = anchor[:, :, None, None].expand_as(basis)
        dense.scatter_add_(1, index, basis)
        return torch.cat([self.global_basis[rows], dense.permute(0, 2, 1, 3).flatten(2)], -1)


def _parts(
    z_local: Float[Tensor, "people nodes d_local"], anchor: Int[Tensor, "points near"]
) -> Float[Tensor, "people points near d_local"]:
    """Local parts by anchor. `index_select` sums its gradient in one order; plain indexing on many threads does not."""
    return z_local.index_select(1, anchor.flatten()).unflatten(1, anchor.shape)
