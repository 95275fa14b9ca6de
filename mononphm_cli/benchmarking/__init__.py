"""How fast: the measurements behind `mononphm benchmark`."""
