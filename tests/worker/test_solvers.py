"""Which solver is chosen, by what the user says and what the model can."""

import dataclasses

import pytest

from mononphm_core.errors import ConfigError
from mononphm_core.io import registry
from mononphm_core.tracking.published.configuration import PublishedConfig
from tests.golden.checkpoints import golden_model
from worker import solvers
from worker.ledger.options import ReconstructionOptions

OURS = registry.find_model()
THEIRS = dataclasses.replace(OURS, name="pretrained", expression_names=())


def options(**given) -> ReconstructionOptions:
    return ReconstructionOptions.from_json(given)


def test_the_model_chooses_where_the_user_does_not():
    """Ours where landmarks are points of the surface, else the published one."""
    ours, theirs = registry.warm_model(OURS, "cpu"), golden_model("tiny")
    assert solvers.chosen(options(), OURS, ours) == "fast"
    assert solvers.chosen(options(solver="published", iterations_scale=0.5), OURS, ours) == "published"
    assert solvers.chosen(options(), THEIRS, theirs) == "published"


def test_what_does_not_fit_together_is_refused_before_any_work():
    """With the next step in the sentence."""
    with pytest.raises(ConfigError, match="choose `published`"):
        solvers.chosen(options(solver="fast"), THEIRS, golden_model("tiny"))
    with pytest.raises(ConfigError, match="belongs to the published solver"):
        solvers.chosen(options(iterations_scale=0.5), OURS, registry.warm_model(OURS, "cpu"))


def test_first_poses_come_from_the_model_itself_or_from_the_bundled_one():
    """A converted checkpoint has no named points."""
    ours = registry.warm_model(OURS, "cpu")
    assert solvers.guide(OURS, ours, "cpu") == (ours, OURS.expression_names)
    leader, names = solvers.guide(THEIRS, golden_model("tiny"), "cpu")
    assert leader.template is not None
    assert names == OURS.expression_names


def test_options_reach_the_published_configuration():
    """Scale and seed; after memory ran out, fewer rays at once, which changes no number."""
    given = options(solver="published", iterations_scale=0.25, seed=9)
    assert solvers.published_config(given, smaller=False) == PublishedConfig(iterations_scale=0.25, seed=9)
    assert solvers.published_config(given, smaller=True).block_rays == solvers.FEWER_RAYS
    facts = solvers.facts("published", solvers.published_config(given, smaller=False))
    assert (facts["iterations_scale"], facts["quirks"]["cosine_ignores_head_rotation"]) == (0.25, True)
    assert solvers.facts("fast", PublishedConfig()) == {"name": "fast"}
