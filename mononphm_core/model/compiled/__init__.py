"""The field compiled for the processor: value, gradient and colour of many points without one large temporary.

The readable twin is the torch code beside it (`identity.py`, `deformation.py`); a test holds them together.
"""
