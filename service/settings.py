"""What an operator can set of the API: environment variables `MONONPHM_<NAME>`, or arguments of `mononphm api`."""

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1 << 30


class ServiceSettings(BaseSettings):
    """Every leaf has a default that works on one machine without any server. Names of the worker mean the same."""

    model_config = SettingsConfigDict(env_prefix="MONONPHM_", extra="ignore")

    data_dir: Path = Path("mononphm-data")
    """Inputs, artifacts, staging, and the database and broker of the embedded default."""
    database_url: str | None = None
    """None: SQLite in the data directory."""
    broker_url: str | None = None
    """None: the filesystem transport in the data directory."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    """0: any free port."""
    require_keys: bool = False
    """Ask for an API key on loopback, too: behind a proxy, or where the machine has several users."""
    allow_remote_without_keys: bool = False
    """Ask nobody for a key although other machines can reach the address: only where the network itself is closed."""
    allowed_hosts: str = ""
    """Comma-separated names, besides this machine's own, that the Host header may have; `*`: any."""

    max_upload_bytes: int = Field(2 * GIB, gt=0)
    max_pixels: int = Field(64_000_000, gt=0)
    """Of one picture, declared."""
    min_side_px: int = Field(64, gt=0)
    max_aspect: float = Field(6.0, ge=1)
    max_duration_s: float = Field(900.0, gt=0)
    max_frames: int = Field(40_000, gt=0)
    """Pictures that decoding counts; the worker enforces it."""
    free_space_reserve_bytes: int = Field(1 * GIB, ge=0)
    """Uploads stop before less than this is free on the data volume."""
    upload_idle_s: float = Field(60.0, gt=0)
    """An upload that sends nothing for so long is given up."""
    staging_max_age_s: float = Field(3600.0, gt=0)
    """Staged bytes that nobody touched for so long are removed."""

    upload_lifetime_s: float = Field(24 * 3600.0, gt=0)
    """A resumable upload that gained no byte for so long is removed."""
    max_open_uploads: int = Field(32, ge=1)
    """Resumable uploads on their way, for one owner."""

    gpu_from_s: float | None = Field(None, gt=0)
    """Jobs that are expected to take so long without a GPU wait for workers that have one. None: one queue for all."""
    max_queued: int = Field(200, ge=1)
    """More waiting jobs than this are not accepted."""
    max_active_jobs_per_owner: int = Field(50, ge=1)
    """Waiting and running jobs of one owner, where keys are required."""
    max_stored_bytes_per_owner: int = Field(100 * GIB, ge=1)
    """Inputs and artifacts of one owner, where keys are required."""
    max_uploads: int = Field(16, ge=1)
    """Uploads at the same time."""
    max_event_streams: int = Field(128, ge=1)
    max_requests: int = Field(512, ge=8)
    """Requests at the same time, streams and uploads included."""
    event_poll_s: float = Field(0.3, gt=0)
    """How often a stream looks for new events."""
    worker_fresh_s: float = Field(15.0, gt=0)
    """A worker silent for longer does not count as ready."""
    webhook_allow_private: bool = False
    """Send webhooks to private addresses, too: where receivers live in the same closed network."""
    webhook_poll_s: float = Field(1.0, gt=0)
    """How often the outbox is looked into."""
    shutdown_s: int = Field(5, ge=0)
    """How long a stopping server lets requests finish."""
    log_level: str = "INFO"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address that is bound."""
        return is_loopback(self.host)

    @property
    def keys_required(self) -> bool:
        """Whether every request has to show an API key: by default as soon as other machines reach the address."""
        return self.require_keys or not (self.is_loopback or self.allow_remote_without_keys)

    @property
    def host_names(self) -> frozenset[str] | None:
        """The names that a Host header may have; None: any. On loopback a foreign name means DNS rebinding."""
        named = {name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()}
        if "*" in named or (not self.is_loopback and not named):
            return None
        return frozenset(named | {"localhost", "127.0.0.1", "[::1]", self.host.lower()})


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses of the loopback interface."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
