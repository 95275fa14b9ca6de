"""The published training path: NPHM-style scans -> supervision files -> auto-decoder training -> published checkpoints.

scans/<subject>/<expression>/{scan, registration}.ply -> fields.py, correspondences.py -> files.py (layout)
-> items.py (one scan) -> losses.py -> loop.py -> checkpoint.py (what `mononphm models add` reads)
"""
