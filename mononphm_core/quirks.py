"""Peculiarities of the published program that change its numbers, each a switch with its number in our notes.

The published configuration has all of them on, so that its results can be repeated; with `REPAIRED` the same algorithm
does what the paper describes. Our own solver has none of them: it does not know this file.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class PublishedQuirks:
    """Each field is one deviation, kept where it is true and mended where it is false."""

    cosine_ignores_head_rotation: bool = True
    """5: the slope of the distance along a ray is direction (world) . gradient (posed); the turn between them is left
    out."""
    mask_counts_other_rays_as_one: bool = True
    """6: the mask loss weights its two parts by the number of hair rays and by a *boolean* instead of the number of the
    others; without a hair ray it is 0."""
    landmark_search_starts_elsewhere: bool = True
    """7: the search for where anchor j goes starts at anchor j // 32, with noise, instead of at anchor j."""
    landmark_targets_condition_deformation: bool = True
    """9, first half: anchors that were shifted for the landmark pairs also condition the deformation network."""
    landmark_targets_are_fixed: bool = True
    """9, second half: how a canonical target moves with the identity is left out of the implicit derivative."""
    pose_is_of_the_frame_before: bool = True
    """8: frame t is read with the head pose of frame t - 1 (frame 0 with its own)."""
    pixel_rays_are_stretched: bool = True
    """12: rays go through x * W / (W - 1) where landmarks are projected without that factor."""
    mesh_colour_wraps: bool = True
    """13: vertex colours outside 0 .. 255 wrap around after the colour correction instead of being clipped."""

    largest_label_is_outside: bool = True
    """17: the largest face-parser label above 14 is taken for "outside of the parsed square" and dropped, though it may
    be glasses, a hat or an earring."""


PUBLISHED = PublishedQuirks()
REPAIRED = PublishedQuirks(**{field.name: False for field in fields(PublishedQuirks)})
