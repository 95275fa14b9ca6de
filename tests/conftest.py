"""Shared by all tests: tensors are prepared once, as every process of the product does."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import numpy as np

    from mononphm_core.numerics import warm_up

    # NumPy works out the limits of its types on first use, and must not do that after denormals became zero.
    for kind in (np.float32, np.float64):
        np.finfo(kind)
    warm_up()
