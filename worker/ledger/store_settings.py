"""Where inputs and artifacts lie, as the operator says: environment variables `MONONPHM_STORAGE_<NAME>`.

The same for API and workers. Nothing set: the data directory, which both must then see.
"""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from mononphm_core.errors import ConfigError
from worker.ledger.storage import LocalStorage, Storage

API_PATIENCE_S = 15.0
"""A client waits for the answer."""
WORKER_PATIENCE_S = 600.0
"""Minutes of computing hang on it, and nobody waits at the other end of a connection."""


class StoreSettings(BaseSettings):
    """Every leaf is optional but the address of an object store, where there is one."""

    model_config = SettingsConfigDict(env_prefix="MONONPHM_STORAGE_", extra="ignore")

    url: str | None = None
    """`s3://bucket/prefix`; None: the data directory."""
    endpoint: str | None = None
    """`http://store:9000` of an S3-compatible store; None: Amazon's own."""
    public_endpoint: str | None = None
    """Where clients reach the same store; None: they do not (with an endpoint), so no direct links are given."""
    region: str | None = None
    """None: what boto3 finds, else us-east-1."""
    access_key_id: str | None = None
    access_key_id_file: Path | None = None
    """A file that has it, such as a container's secret."""
    secret_access_key: SecretStr | None = None
    secret_access_key_file: Path | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """How the bucket is named: `host/bucket` or `bucket.host`; auto: the first with an endpoint."""
    timeout_s: float = Field(20.0, gt=0)
    """Without a byte for so long a request is given up and sent again."""
    patience_s: float | None = Field(None, gt=0)
    """How long a request is sent again; None: 15 s in the API, 10 min in a worker."""
    create: bool = False
    """Make the bucket where it is not there yet: for a small store of one's own."""
    part_bytes: int = Field(8 << 20, ge=5 << 20)
    """Files above it travel in parts of this size."""
    link_lifetime_s: int = Field(300, ge=1, le=7 * 24 * 3600)
    """How long a direct link is good for."""


def configured_storage(data_dir: Path, patience_s: float = WORKER_PATIENCE_S) -> Storage:
    """The store that the environment names. Raises ConfigError for one that cannot be, and StorageUnavailable."""
    settings = StoreSettings()
    if not settings.url:
        return LocalStorage(data_dir)
    address = urlsplit(settings.url)
    if address.scheme != "s3" or not address.netloc:
        raise ConfigError("MONONPHM_STORAGE_URL is s3://bucket or s3://bucket/prefix; leave it out for a local folder")
    try:
        from worker.ledger.bucket import Bucket, Place
        from worker.ledger.objects import ObjectStorage
    except ModuleNotFoundError as error:
        raise ConfigError("an object store needs boto3: pip install 'mononphm[s3]'") from error
    secret = _one_of("SECRET_ACCESS_KEY", settings.secret_access_key, settings.secret_access_key_file)
    key_id = SecretStr(settings.access_key_id) if settings.access_key_id else None
    prefix = address.path.strip("/")
    addressing = "path" if settings.addressing == "auto" and settings.endpoint else settings.addressing
    region = settings.region or ("us-east-1" if settings.endpoint else None)
    place = Place(
        bucket=address.netloc, prefix=f"{prefix}/" if prefix else "", endpoint=settings.endpoint,
        public_endpoint=settings.public_endpoint, region=region,
        access_key_id=_one_of("ACCESS_KEY_ID", key_id, settings.access_key_id_file), secret_access_key=secret,
        addressing=addressing, timeout_s=settings.timeout_s, patience_s=settings.patience_s or patience_s,
        part_bytes=settings.part_bytes, link_lifetime_s=settings.link_lifetime_s,
    )  # fmt: skip
    bucket = Bucket(place)
    if settings.create:
        bucket.create()
    return ObjectStorage(data_dir, bucket)


def _one_of(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    """A secret from the environment or from a file. Raises ConfigError for both, or a file that cannot be read."""
    if value is not None and file is not None:
        raise ConfigError(f"set MONONPHM_STORAGE_{name} or MONONPHM_STORAGE_{name}_FILE, not both")
    if file is None:
        return value.get_secret_value() if value is not None else None
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"MONONPHM_STORAGE_{name}_FILE cannot be read: {error.strerror}") from error
