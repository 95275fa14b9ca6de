"""Shared by all tests: tensors are prepared once, as every process of the product does."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    from mononphm_core.numerics import warm_up

    warm_up()
