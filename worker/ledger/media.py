"""What a file is, by its content: the service's door to the core's sniffer, which needs nothing but the standard library."""

from mononphm_core.io.sniff import SniffedMedia, sniff

__all__ = ["SniffedMedia", "sniff"]
