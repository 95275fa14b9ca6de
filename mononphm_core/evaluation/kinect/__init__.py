"""The published evaluation on depth camera sequences, definition by definition, and our stricter figures beside it.

depth -> points and normals (scan.py) -> the evaluated part of the face (region.py) -> one similarity a frame by the
published descent (icp.py) -> figures (figures.py); protocol.py walks the frames, published_runs.py reads results of
the published program.
"""
