"""The first look at an upload, from its content and before the queue. Standard library only."""

from mononphm_core.io.sniff import SniffedMedia, sniff

__all__ = ["SniffedMedia", "sniff"]
