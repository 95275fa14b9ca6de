"""A small typed HTTP client of the service: what `submit`, `jobs` and `demo` speak."""

from mononphm_cli.client.http import Client, Retries
from mononphm_cli.client.models import Artifact, Job, JobPage

__all__ = ["Artifact", "Client", "Job", "JobPage", "Retries"]
