"""What a file is, by its content: the service's door to the core's sniffer. Standard library only."""

from mononphm_core.io.sniff import SniffedMedia, sniff

__all__ = ["SniffedMedia", "sniff"]
