"""A small typed HTTP client of the service: what `submit`, `jobs` and `demo` speak."""

from mononphm_cli.client.events import Event
from mononphm_cli.client.http import Client, Retries
from mononphm_cli.client.models import Artifact, Job, JobPage

__all__ = ["Artifact", "Client", "Event", "Job", "JobPage", "Retries"]
