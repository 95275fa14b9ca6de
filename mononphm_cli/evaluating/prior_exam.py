"""The exam of a prior: true heads of `training.unseen` put to the fits and figures of `evaluation`.

Training and evaluation do not know each other; this is where they meet.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mononphm_core.errors import ConfigError
from mononphm_core.evaluation import prior_figures, prior_fit
from mononphm_core.meshing.clean import cut_below
from mononphm_core.meshing.isosurface import extract_surface
from mononphm_core.model.config import RELEASE
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.training.appearance import Painter
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.unseen import Examiner

log = logging.getLogger(__name__)
FIT_POINTS, SCORE_POINTS, BAND_POINTS = 6000, 4000, 3000
LINE_SAMPLES = 81
LINE_MM = 8.0
CLOSER, OVERLAP_MM = "mouthShrugLower", 0.5
"""The blendshape that closes the true mouths, and how far their inner lips then overlap."""
BOX_MIN, BOX_MAX = (-0.55, -0.52, -0.78), (0.55, 0.68, 0.45)
MESH_CELLS = 112
DUST = 20
"""Triangles: a part below this is a speck at a lip or lid, larger ones are stray components."""


def examine(model: HeadModel, data: Path, people: int, steps: int, seed: int) -> dict[str, float]:
    """All figures, in the order of the model card."""
    if model.template is None:
        raise ConfigError("only a prior with a template can be examined: codes are started from landmarks")
    heads = OpenHeads(data)
    exam = Exam(model, Examiner(heads, Painter(data, heads), seed), steps)
    numbers = range(people)
    return {
        **exam.neutral([exam.true.person(i) for i in numbers], "neutral"),
        **exam.expressions(numbers),
        **exam.colours(numbers),
        **exam.neutral([exam.true.deformed(1000 + i) for i in numbers], "bent", brief=True),
        **exam.neutral([exam.true.extreme(2000 + i) for i in numbers], "extreme", brief=True),
        **exam.cost(),
    }


class Exam:
    """One model, one set of true heads."""

    def __init__(self, model: HeadModel, true: Examiner, steps: int) -> None:
        self.model, self.true, self.steps = model, true, steps
        self.z_geo = torch.zeros(0)
        self.heads: list[np.ndarray[Any, Any]] = []

    def scan(self, heads: list[np.ndarray[Any, Any]]) -> prior_fit.SurfacePoints:
        """Points to fit codes to."""
        surfaces = [self.true.surface(x, FIT_POINTS, 10 + i, to_fit=True) for i, x in enumerate(heads)]
        return prior_fit.SurfacePoints(
            _stack([s.x for s in surfaces]),
            _stack([s.normals for s in surfaces]),
            _stack([self.true.landmarks(x) for x in heads]),
        )

    def surface_figures(
        self, heads: list[np.ndarray[Any, Any]], conditioned: Conditioned, posed: bool, name: str
    ) -> dict[str, float]:
        """Mean surface errors by region and the normals' agreement."""
        surfaces = [self.true.surface(x, SCORE_POINTS, 500 + i) for i, x in enumerate(heads)]
        details = [self.true.surface(x, SCORE_POINTS, 700 + i, details=True) for i, x in enumerate(heads)]
        x, normals = _stack([s.x for s in surfaces]), _stack([s.normals for s in surfaces])
        errors, cosine = prior_figures.surface_errors(self.model, conditioned, x, normals, posed)
        face = torch.from_numpy(np.stack([s.face for s in surfaces]))
        fine, _ = prior_figures.surface_errors(
            self.model, conditioned, _stack([s.x for s in details]), _stack([s.normals for s in details]), posed
        )
        return {
            f"{name}_face_mm": float(errors[face].mean()),
            f"{name}_head_mm": float(errors.mean()),
            f"{name}_lids_lips_nostrils_mm": float(fine.mean()),
            f"{name}_normal_consistency": float(cosine.mean()),
            f"{name}_face_p95_mm": float(errors[face].quantile(0.95)),
        }

    def neutral(self, heads: list[np.ndarray[Any, Any]], name: str, brief: bool = False) -> dict[str, float]:
        """Unseen identities: canonical surface; if not `brief`, the field around it, the template, closed lips."""
        z = prior_fit.fit_identity(self.model, self.scan(heads), self.steps)
        still = self.conditioned(z, self.canonical_code(len(z)))
        figures = self.surface_figures(heads, still, False, name)
        log.info("%s: %s", name, figures)
        if brief:
            return figures
        self.z_geo, self.heads = z, heads
        band = [self.true.band(x, BAND_POINTS, 900 + i) for i, x in enumerate(heads)]
        lengths, wrong, signs = [], 0, 0
        for i, (x, true) in enumerate(band):
            one = self.conditioned(z[i : i + 1], self.canonical_code(1))
            sdf, gradient = prior_figures.field(self.model, one, torch.from_numpy(x)[None], False)
            lengths.append(gradient[0].norm(dim=-1))
            wrong += int(((sdf[0].numpy() < 0) != (true < 0)).sum())
            signs += len(true)
        length = torch.cat(lengths)
        figures["gradient_within_10_percent"] = float(((length > 0.9) & (length < 1.1)).float().mean())
        figures["sign_errors"] = wrong / signs
        return figures | self.template(z) | self.lips(z) | self.components(z[:2])

    def template(self, z: Tensor) -> dict[str, float]:
        """Named points against the zero set, and the way back through the deformation field."""
        template = self.model.template
        assert template is not None
        still = self.conditioned(z, self.canonical_code(len(z)))
        x = template.canonical(z, "surface")
        off, _ = prior_figures.surface_errors(self.model, still, x, torch.zeros_like(x), False)
        z_exp = self.mixtures(range(len(z)))
        moved = self.conditioned(z, z_exp)
        _, there = prior_figures.inverse_deformation(self.model, moved, x, template.posed(z, z_exp, "surface"))
        return {
            "template_to_surface_mm": float(off.mean()),
            "template_to_surface_p95_mm": float(off.quantile(0.95)),
            "inverse_deformation_converged": float(there.float().mean()),
        }

    def lips(self, z: Tensor) -> dict[str, float]:
        """Closed lips and closed lids: air where the true head has none.

        The neutral mouth is not closed on everybody; "met" is with as much of `CLOSER` as makes the true lips meet.
        """
        zero = torch.zeros(len(z), self.model.config.deformation.d_expression)
        blink = zero.clone()
        for side in "LR":
            blink[:, self.true.heads.expression_names.index(f"eyeBlink_{side}")] = 1.0
        met = _stack([self.true.lips_met(x, CLOSER, OVERLAP_MM) for x in self.heads])
        air, true_air = self.lip_gaps_mm(z, zero)
        air_met, true_air_met = self.lip_gaps_mm(z, met)
        lids, open_lids = 0, 0
        for i, head in enumerate(self.heads):
            closed = self.true.posed(head, blink[i].numpy())
            front = self.true.eye_fronts(closed)
            covered = self.true.inside(closed, front)
            with torch.no_grad():
                sdf = self.model.sdf(
                    torch.from_numpy(front[covered])[None], self.conditioned(z[i : i + 1], blink[i : i + 1])
                )
            lids, open_lids = lids + int(covered.sum()), open_lids + int((sdf > 0).sum())
        return {
            "lip_gap_met_mm": air_met,
            "lip_gap_met_of_the_truth_mm": true_air_met,
            "lip_gap_mm": air,
            "lip_gap_of_the_truth_mm": true_air,
            "closed_lids_seen_open": open_lids / max(lids, 1),
        }

    def lip_gaps_mm(self, z: Tensor, z_exp: Tensor) -> tuple[float, float]:
        """Air on the lines through the lips, of the model and of the true heads."""
        posed = [self.true.posed(x, e.numpy()) for x, e in zip(self.heads, z_exp, strict=True)]
        lines = _stack([self.true.lip_lines(x, LINE_SAMPLES).reshape(-1, 3) for x in posed])
        with torch.no_grad():
            air = self.model.sdf(lines, self.conditioned(z, z_exp)).unflatten(1, (3, LINE_SAMPLES))
        inside = np.stack([self.true.inside(x, line.numpy()) for x, line in zip(posed, lines, strict=True)])
        return float(prior_figures.open_lengths_mm(air, LINE_MM).mean()), float((~inside).mean() * LINE_MM)

    def components(self, z: Tensor) -> dict[str, float]:
        """Connected parts of meshes at `MESH_CELLS`, dust at lips and lids apart."""
        parts = []
        for i in range(len(z)):
            one = self.conditioned(z[i : i + 1], self.canonical_code(1))

            def sdf(x: Tensor, one: Conditioned = one) -> Tensor:
                with torch.no_grad():
                    inside = torch.nn.functional.pad(x[None], (0, self.model.config.deformation.ambient))
                    distance: Tensor = self.model.identity(inside, one.person, colour=False)[0][0]
                return distance

            mesh = cut_below(extract_surface(sdf, BOX_MIN, BOX_MAX, MESH_CELLS), -0.5)
            parts.append(prior_figures.large_components(mesh, DUST))
        return {"components": float(np.mean(parts))}

    def expressions(self, numbers: range) -> dict[str, float]:
        """Unseen mixtures on the people just fitted."""
        z_true = self.mixtures(numbers)
        posed = [self.true.posed(x, z.numpy()) for x, z in zip(self.heads, z_true, strict=True)]
        z_exp = prior_fit.fit_expression(self.model, self.z_geo, self.scan(posed), self.steps)
        figures = self.surface_figures(posed, self.conditioned(self.z_geo, z_exp), True, "expression")
        given = self.surface_figures(posed, self.conditioned(self.z_geo, z_true), True, "expression_true_weights")
        figures["expression_true_weights_face_mm"] = given["expression_true_weights_face_mm"]
        figures["blendshape_weights_error"] = float((z_exp - z_true).abs().mean())
        log.info("expressions: %s", figures)
        return figures

    def colours(self, numbers: range) -> dict[str, float]:
        """Unseen complexions: half of the points to fit, half to score."""
        sets = [self.true.colours(self.heads[i], 8000, 3000 + i) for i in numbers]
        x, colour = _stack([s[0] for s in sets]), _stack([s[1] for s in sets])
        z_app = prior_fit.fit_appearance(self.model, self.z_geo, x[:, ::2], colour[:, ::2], self.steps)
        with torch.no_grad():
            inside = torch.nn.functional.pad(x[:, 1::2], (0, self.model.config.deformation.ambient))
            _, found = self.model.identity(inside, self.model.identity.person(self.z_geo, z_app), colour=True)
        assert found is not None
        return {"colour_psnr_db": prior_figures.colour_psnr_db(found, colour[:, 1::2])}

    def cost(self) -> dict[str, float]:
        """Multiply-adds a query against the published release."""
        count = prior_figures.multiplications
        return {
            "release_over_this_multiplications": count(RELEASE, True) / count(self.model.config, True),
            "multiplications_a_query": count(self.model.config, True),
        }

    def mixtures(self, numbers: range) -> Tensor:
        """Expressions of these people."""
        return _stack([self.true.expression(4000 + i) for i in numbers])

    def canonical_code(self, count: int) -> Tensor:
        """z_exp of the canonical pose."""
        assert self.model.template is not None
        return self.model.template.z_canonical.expand(count, -1)

    def conditioned(self, z_geo: Tensor, z_exp: Tensor) -> Conditioned:
        """Codes made ready."""
        with torch.no_grad():
            return self.model.condition(z_geo, z_exp)


def _stack(arrays: list[np.ndarray[Any, Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))
