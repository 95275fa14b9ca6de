"""The compiled field beside its readable twin."""

from pathlib import Path

import pytest
import torch

from mononphm_core.model.config import IdentityConfig
from mononphm_core.model.fast import FastField
from mononphm_core.model.head import HeadModel
from tests.core.model import tiny

pytest.importorskip("numba", reason="the compiled field needs numba")
pytestmark = pytest.mark.slow  # half a minute where `make setup` has not compiled the kernels

MODELS = [tiny.PUBLISHED, tiny.OURS, tiny.LINEAR]


def both(identity: IdentityConfig) -> tuple[HeadModel, HeadModel]:
    """The same model twice: float32 and compiled, and the torch modules in double precision."""
    fast = tiny.tiny_model(identity).float()
    fast.fast = FastField(fast)
    return fast, tiny.tiny_model(identity)


@pytest.mark.parametrize("identity", MODELS)
def test_the_compiled_field_says_what_the_modules_say(identity: IdentityConfig) -> None:
    """Distance, colour and gradient of three frames, more points than one block and no multiple of a tile."""
    fast, slow = both(identity)
    z_geo, z_app, z_exp = tiny.codes(slow, 3)
    x = tiny.points(3, 1101)
    found = fast.query(x.float(), fast.condition(z_geo.float(), z_exp.float(), z_app.float()), gradient=True)
    twin = slow.query(x, slow.condition(z_geo, z_exp, z_app), gradient=True)
    assert found.sdf.grad_fn is None
    assert found.colour is not None and found.gradient is not None
    assert twin.colour is not None and twin.gradient is not None
    steep = max(1.0, twin.gradient.abs().max().item())  # random affine frames stretch space a thousandfold
    torch.testing.assert_close(found.sdf.double(), twin.sdf, atol=3e-6 * steep, rtol=0)  # float32 of the place
    torch.testing.assert_close(found.colour.double(), twin.colour, atol=1e-5 * steep, rtol=0)
    torch.testing.assert_close(found.gradient.double(), twin.gradient, atol=3e-5 * steep, rtol=0)
    torch.testing.assert_close(fast.sdf(x.float(), fast.condition(z_geo.float(), z_exp.float())), found.sdf)


def test_a_graph_is_kept_where_one_is_wanted() -> None:
    """The compiled field has no way back to codes: whoever needs one gets the modules."""
    fast, _ = both(tiny.LINEAR)
    z_geo, z_app, z_exp = (z.float() for z in tiny.codes(fast, 1))
    x = tiny.points(1, 20).float()
    moving = fast.query(x, fast.condition(z_geo, z_exp, z_app.requires_grad_(True)))
    assert moving.colour is not None and moving.colour.requires_grad
    with torch.no_grad():
        assert not fast.sdf(x, fast.condition(z_geo, z_exp)).requires_grad
    assert fast.sdf(x.requires_grad_(True), fast.condition(z_geo, z_exp)).requires_grad


def test_changed_weights_are_noticed() -> None:
    """The kernel works on a transposed copy: it must never answer for weights that are gone."""
    fast, _ = both(tiny.LINEAR)
    z_geo, _, z_exp = (z.float() for z in tiny.codes(fast, 1))
    x = tiny.points(1, 20).float()
    before = fast.sdf(x, fast.condition(z_geo, z_exp))
    fast.identity.geometry.biases[-1].add_(0.5)  # type: ignore[union-attr, index]
    torch.testing.assert_close(fast.sdf(x, fast.condition(z_geo, z_exp)), before + 0.5, atol=1e-6, rtol=0)


def test_a_field_that_is_not_finite_stays_so() -> None:
    """Meshing refuses such a field by name; a kernel that smooths it over would hide broken weights."""
    fast, _ = both(tiny.LINEAR)
    z_geo, _, z_exp = (z.float() for z in tiny.codes(fast, 1))
    fast.identity.geometry.biases[1].fill_(float("nan"))  # type: ignore[union-attr, index]
    assert fast.sdf(tiny.points(1, 5).float(), fast.condition(z_geo, z_exp)).isnan().all()


def test_machine_code_counts_only_for_the_source_that_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job waits for a compiler, and none runs code of yesterday's source."""
    from mononphm_core.model.compiled import prepare

    monkeypatch.setattr(prepare, "_folder", lambda: tmp_path)
    assert not prepare.is_prepared()
    assert tiny.tiny_model(tiny.LINEAR).float().compiled().fast is None
    prepare.prepare()
    assert prepare.is_prepared()
    assert tiny.tiny_model(tiny.LINEAR).float().compiled().fast is not None
    monkeypatch.setattr(prepare, "_stamp", lambda: b"another processor")
    assert not prepare.is_prepared()
