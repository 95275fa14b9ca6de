"""What the published program reads of a clip: its own folder layout, its masks, crops, cameras and rays.

folder -> FrameParts (raw) -> prepare -> PublishedObservation
"""
