"""The published tracker as a named configuration: its schedules, weights, sampling, losses and peculiarities.

frames -> stage 1, frame by frame -> stage 2, all frames -> the same TrackedSequence as ours

Slow and faithful, to be compared with; ours is beside it. Numbers and their sources: configuration.py, schedules.py.
"""
