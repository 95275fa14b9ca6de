"""One bucket of an S3-compatible store: the few requests that we make, and what becomes of one that goes wrong.

Every request here may be sent twice without harm, so one that timed out, was cut off or met a 5xx is sent again until
`patience_s` are over. Bytes carry their checksum both ways: an upload is signed with its SHA-256 and compared with what
the store says it has; a download that breaks goes on where it was, from the same object (If-Match).
"""

import base64
import hashlib
import http.client
import logging
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as boto
import urllib3.exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from worker.ledger.errors import StorageUnavailable, StoredBytesDamaged
from worker.ledger.failpoints import reach
from worker.ledger.storage import CHUNK_BYTES, Check, Removed, never

log = logging.getLogger(__name__)

THREADS = 8
PARTS_AT_ONCE = 4
MAX_PARTS = 9000
"""The protocol allows 10 000 parts; larger files get larger parts."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
PROBE_TIMEOUT_S = 3.0
SLOWEST_BYTES_PER_S = 8 << 10
"""A download slower than this is begun anew: a connection that trickles hides a store that hangs."""

NEEDED = {
    "put_object": ("ETag",), "upload_part": ("ETag",), "create_multipart_upload": ("UploadId",),
    "complete_multipart_upload": ("ETag",), "copy_object": ("CopyObjectResult",),
    "head_object": ("ETag", "ContentLength"), "get_object": ("ETag", "ContentLength", "Body"),
    "list_objects_v2": ("Name",), "list_object_versions": ("Name",), "list_multipart_uploads": ("Bucket",),
}  # fmt: skip
"""What an answer has if it is whole."""

MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "404"})
TRANSIENT = frozenset({
    "InternalError", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "RequestTimeout",
    "RequestTimeoutException", "IncompleteBody", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch", "OperationAborted",
})  # fmt: skip
BROKEN = (
    boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, ResponseParserError,
    urllib3.exceptions.HTTPError, http.client.HTTPException, OSError,
)  # fmt: skip


Outgoing = tuple[Path, str, str, dict[str, str]]
"""A file, its key, its sha256, its headers."""


class Damaged(Exception):
    """The store has, or sent, other bytes than it should; the next try may be better."""


class TooSlow(Exception):
    """The connection trickles."""


@dataclass(frozen=True)
class Place:
    """Which bucket, where, and how long to wait for it."""

    bucket: str
    prefix: str
    """Empty, or ends with a slash."""
    endpoint: str | None = None
    """None: Amazon's own."""
    public_endpoint: str | None = None
    """Where clients reach the store; None: they do not, unless it is Amazon's."""
    region: str | None = None
    access_key_id: str | None = None
    """None: what boto3 finds by itself (environment, shared file, the role of the machine)."""
    secret_access_key: str | None = None
    addressing: str = "auto"
    timeout_s: float = 20.0
    patience_s: float = 60.0
    part_bytes: int = 8 << 20
    link_lifetime_s: int = 300


@dataclass(frozen=True)
class Stored:
    """One object in a list."""

    key: str
    version: str | None
    bytes: int
    touched_at: float
    """Seconds since 1970, by the store's clock."""


class Patience:
    """How long one journey is tried; a pause between tries, longer each time."""

    def __init__(self, seconds: float, check: Check) -> None:
        self._seconds = seconds
        self._check = check
        self.renew()

    def renew(self) -> None:
        """Something went well: the whole patience again."""
        self._until, self._pause = time.monotonic() + self._seconds, FIRST_PAUSE_S

    def wait(self, error: Exception, what: str) -> None:
        """Before the next try. Raises StorageUnavailable when there is none, and whatever the check does."""
        self._check()
        if time.monotonic() + self._pause > self._until:
            raise StorageUnavailable(f"{what}: {_said(error)}, tried for {self._seconds:.0f} s") from error
        log.info("%s: %s; trying again", what, _said(error))
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)


class Bucket:
    """Safe for threads. Raises StorageUnavailable, and FileNotFoundError for a key that is not there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        session = boto3.session.Session(
            aws_access_key_id=place.access_key_id,
            aws_secret_access_key=place.secret_access_key,
            region_name=place.region,
        )
        self._client = _client_of(session, place, place.endpoint, place.timeout_s)
        self._prober = _client_of(session, place, place.endpoint, min(place.timeout_s, PROBE_TIMEOUT_S))
        public = place.public_endpoint
        self._signer = _client_of(session, place, public, place.timeout_s) if public else self._client
        self._gives_links = place.public_endpoint is not None or place.endpoint is None
        self._pool = ThreadPoolExecutor(THREADS, "store")
        self._is_versioned: bool | None = None

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def probe(self) -> None:
        """One quick request, not repeated: does the store answer, and are we let in?"""
        try:
            self._prober.list_objects_v2(Bucket=self.place.bucket, Prefix=self.place.prefix, MaxKeys=1)
        except (*BROKEN, boto.BotoCoreError, boto.ClientError) as error:
            raise StorageUnavailable(_said(error)) from error

    def create(self) -> None:
        """Make the bucket, unless it is there; several processes may."""
        try:
            self._patiently("create the bucket", never, lambda: self._call("create_bucket"))
        except StorageUnavailable as error:
            if not any(code in str(error) for code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")):
                raise

    # ---------------------------------------------------------------- bytes in

    def put_files(self, files: list[Outgoing], check: Check = never) -> None:
        """Store each (file, key, sha256, headers): small ones side by side, of large ones the parts."""
        large: list[Outgoing] = []
        small: list[Outgoing] = []
        for item in files:
            (small if item[0].stat().st_size <= self.place.part_bytes else large).append(item)
        waiting = [self._pool.submit(self.put_file, *item, check) for item in small]
        try:
            for item in large:
                self.put_file(*item, check)
            for future in waiting:
                future.result()
        finally:
            _give_up(waiting)

    def put_file(
        self, source: Path, key: str, sha256: str, headers: dict[str, str] | None = None, check: Check = never
    ) -> None:
        """Store a file whose checksum is known. It is there whole when this returns, or not at all."""
        check()
        given = {"Metadata": {"sha256": sha256}, **(headers or {})}
        if source.stat().st_size <= self.place.part_bytes:
            body = source.read_bytes()
            if hashlib.sha256(body).hexdigest() != sha256:
                raise StoredBytesDamaged(f"{source.name} changed while it was stored")
            reach("put.before")
            self._patiently(f"PUT {key}", check, lambda: self._send("put_object", key, body, given))
            reach("put.after")
        else:
            self._put_parts(source, key, sha256, given, check)

    def _put_parts(self, source: Path, key: str, sha256: str, headers: dict[str, Any], check: Check) -> None:
        size, digest = source.stat().st_size, hashlib.sha256()
        part_bytes = max(self.place.part_bytes, -(-size // MAX_PARTS))
        begun = self._ask("create_multipart_upload", check, Key=key, ChecksumAlgorithm="SHA256", **headers)
        upload, parts = begun["UploadId"], list[dict[str, Any]]()
        window: deque[Future[dict[str, Any]]] = deque()
        try:
            with source.open("rb") as file:
                while piece := file.read(part_bytes):
                    check()
                    digest.update(piece)
                    if len(window) == PARTS_AT_ONCE:
                        parts.append(window.popleft().result())
                    number = len(parts) + len(window) + 1
                    window.append(self._pool.submit(self._put_part, key, upload, number, piece, check))
            while window:
                parts.append(window.popleft().result())
            if digest.hexdigest() != sha256:
                raise StoredBytesDamaged(f"{source.name} changed while it was stored")
            reach("complete.before")
            self._complete(key, upload, parts, sha256, size, check)
            reach("complete.after")
        except BaseException:
            _give_up(window)
            self._abort_quietly(key, upload)
            raise

    def _put_part(self, key: str, upload: str, number: int, piece: bytes, check: Check) -> dict[str, Any]:
        what = f"part {number} of {key}"
        answer = self._patiently(
            what, check, lambda: self._send("upload_part", key, piece, {"UploadId": upload, "PartNumber": number})
        )
        reach("put.after")
        named = {"PartNumber": number, "ETag": answer["ETag"]}
        return named | ({"ChecksumSHA256": answer["ChecksumSHA256"]} if "ChecksumSHA256" in answer else {})

    def _complete(
        self, key: str, upload: str, parts: list[dict[str, Any]], sha256: str, size: int, check: Check
    ) -> None:
        """Make the parts an object. An answer that got lost makes the second try find no upload, but the object."""
        try:
            self._ask("complete_multipart_upload", check, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            log.info("%s: the upload is gone; looking whether it had been completed", key)

        def compare() -> dict[str, Any]:
            found = self._call("head_object", Key=key)
            if found["ContentLength"] != size or found.get("Metadata", {}).get("sha256") != sha256:
                raise Damaged("the store has something else than was uploaded")
            return found

        self._patiently(f"HEAD {key}", check, compare)

    def _send(self, operation: str, key: str, body: bytes, more: dict[str, Any]) -> dict[str, Any]:
        """One PUT with its checksum. Raises Damaged when the store says it has other bytes."""
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        answer = self._call(operation, Key=key, Body=body, ChecksumSHA256=digest, **more)
        if answer.get("ChecksumSHA256", digest) != digest:
            raise Damaged("other bytes arrived than were sent")
        etag = str(answer.get("ETag", "")).strip('"')
        is_md5 = re.fullmatch("[0-9a-f]{32}", etag) and answer.get("ServerSideEncryption", "AES256") == "AES256"
        if "ChecksumSHA256" not in answer and is_md5 and etag != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise Damaged("other bytes arrived than were sent")
        return answer

    def copy(self, key: str, new_key: str) -> None:
        """The same object under another key, without the bytes coming here."""
        source = {"Bucket": self.place.bucket, "Key": self._full(key)}
        self._ask("copy_object", never, Key=new_key, CopySource=source)

    # ---------------------------------------------------------------- bytes out

    def open(self, key: str, first: int = 0, check: Check = never) -> "Reader":
        """The object's bytes from `first` on."""
        return Reader(self, key, first, check)

    def fetch(self, key: str, target: Path, sha256: str, check: Check = never) -> None:
        """An object into a file, which is there only when it has the checksum. Raises StoredBytesDamaged."""
        patience, part = Patience(self.place.patience_s, check), target.with_suffix(".part")
        for attempt in (1, 2, 3):
            digest = hashlib.sha256()
            reader = self.open(key, 0, check)
            try:
                with part.open("wb") as sink:
                    while piece := reader.read(CHUNK_BYTES):
                        check()
                        digest.update(piece)
                        sink.write(piece)
            finally:
                reader.close()
            if digest.hexdigest() == sha256:
                part.replace(target)
                return
            part.unlink()
            if attempt < 3:
                patience.wait(Damaged("the bytes have another checksum than was recorded"), f"GET {key}")
        raise StoredBytesDamaged(f"{key} comes back with another checksum than it was stored under")

    def link(self, key: str, disposition: str, media_type: str) -> str | None:
        """An address that gives the object to anybody for a while; None where clients cannot reach the store."""
        if not self._gives_links:
            return None
        wanted = {"ResponseContentDisposition": disposition, "ResponseContentType": media_type}
        link: str = self._signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.place.bucket, "Key": self._full(key), **wanted},
            ExpiresIn=self.place.link_lifetime_s,
        )
        return link

    # ---------------------------------------------------------------- lists, removal

    def objects(self, prefix: str) -> Iterator[Stored]:
        """The present objects below a prefix."""
        for page in self._pages("list_objects_v2", prefix):
            for item in page.get("Contents", []):
                yield Stored(self._short(item["Key"]), None, int(item["Size"]), item["LastModified"].timestamp())

    def folders(self, prefix: str) -> Iterator[str]:
        """What stands between `prefix` and the next slash."""
        for page in self._pages("list_objects_v2", prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", []):
                yield self._short(item["Prefix"])[len(prefix) :].rstrip("/")

    def unfinished(self, prefix: str) -> list[tuple[str, str, float]]:
        """(key, upload, begun at) of multipart uploads that were not completed: they cost, and no list shows them."""
        found: list[tuple[str, str, float]] = []
        try:
            for page in self._pages("list_multipart_uploads", prefix):
                found += [
                    (self._short(item["Key"]), item["UploadId"], item["Initiated"].timestamp())
                    for item in page.get("Uploads", [])
                ]
        except NotImplementedError:
            log.debug("the store does not list unfinished uploads; let its own rule remove them")
        return found

    def abort(self, prefix: str, begun_before: float | None = None) -> int:
        """Give up the unfinished uploads below a prefix; how many."""
        found = [item for item in self.unfinished(prefix) if begun_before is None or item[2] < begun_before]
        for key, upload, _ in found:
            try:
                self._ask("abort_multipart_upload", never, Key=key, UploadId=upload)
            except FileNotFoundError:
                continue
        return len(found)

    def remove(self, prefix: str) -> Removed:
        """Remove all below a prefix, older versions and unfinished uploads too, and look again afterwards."""
        found = list(self._everything(prefix))
        reach("remove.before")
        for start in range(0, len(found), 1000):
            self._delete(found[start : start + 1000])
        aborted = self.abort(prefix)
        reach("remove.after")
        gone = not found or next(self._everything(prefix), None) is None
        gone = gone and not (aborted and self.unfinished(prefix))
        return Removed(len(found), sum(item.bytes for item in found), gone)

    def _everything(self, prefix: str) -> Iterator[Stored]:
        """Objects and, where the bucket keeps them, older versions and the marks of deletions."""
        if not self._keeps_versions():
            yield from self.objects(prefix)
            return
        for page in self._pages("list_object_versions", prefix):
            for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                key, touched_at = self._short(item["Key"]), item["LastModified"].timestamp()
                yield Stored(key, item["VersionId"], int(item.get("Size", 0)), touched_at)

    def _keeps_versions(self) -> bool:
        """Asked once. A store that does not know the question, or does not let us ask, keeps none that we could see."""
        if self._is_versioned is None:
            try:
                status = self._ask("get_bucket_versioning", never).get("Status")
                self._is_versioned = status in ("Enabled", "Suspended")
            except (NotImplementedError, FileNotFoundError):
                self._is_versioned = False
        return self._is_versioned

    def _delete(self, found: list[Stored]) -> None:
        names = [
            {"Key": self._full(item.key)} | ({"VersionId": item.version} if item.version is not None else {})
            for item in found
        ]
        answer = self._ask("delete_objects", never, Delete={"Objects": names, "Quiet": True})
        refused = [item for item in answer.get("Errors", []) if item.get("Code") not in MISSING]
        if refused:
            raise StorageUnavailable(f"{len(refused)} objects cannot be deleted: {refused[0].get('Code')}")

    # ---------------------------------------------------------------- one request

    def _pages(self, operation: str, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
        begin: dict[str, Any] = {}
        while True:
            page = self._ask(operation, never, Prefix=self._full(prefix), **more, **begin)
            yield page
            if not page.get("IsTruncated"):
                return
            begin = {
                begins: page[ends]
                for begins, ends in (
                    ("ContinuationToken", "NextContinuationToken"), ("KeyMarker", "NextKeyMarker"),
                    ("VersionIdMarker", "NextVersionIdMarker"), ("UploadIdMarker", "NextUploadIdMarker"),
                )
                if page.get(ends)
            }  # fmt: skip

    def _ask(self, operation: str, check: Check, **arguments: Any) -> dict[str, Any]:
        key = arguments.get("Key") or arguments.get("Prefix") or self.place.bucket
        return self._patiently(f"{operation} {key}", check, lambda: self._call(operation, **arguments))

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        if "Key" in arguments:
            arguments["Key"] = self._full(arguments["Key"])
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.place.bucket, **arguments)
        require_whole(operation, answer)
        return answer

    def _patiently(self, what: str, check: Check, send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        patience = Patience(self.place.patience_s, check)
        while True:
            try:
                return send()
            except (*BROKEN, Damaged, boto.BotoCoreError, boto.ClientError) as error:
                raise_if_final(error, what)
                patience.wait(error, what)

    def _abort_quietly(self, key: str, upload: str) -> None:
        """At once and only once: what it does not reach, the janitor will."""
        try:
            self._call("abort_multipart_upload", Key=key, UploadId=upload)
        except (*BROKEN, boto.BotoCoreError, boto.ClientError) as error:
            log.info("an unfinished upload of %s is left to the janitor: %s", key, _said(error))

    def _full(self, key: str) -> str:
        return self.place.prefix + key

    def _short(self, key: str) -> str:
        return key[len(self.place.prefix) :]


class Reader:
    """Bytes of one object as they come. A broken connection is made anew where it broke; not safe for threads."""

    def __init__(self, bucket: Bucket, key: str, first: int, check: Check) -> None:
        self._bucket, self._key, self._position = bucket, key, first
        self._patience = Patience(bucket.place.patience_s, check)
        self._body: Any = None
        self._etag: str | None = None
        self._trickles = False
        self._end = -1
        self._renewed_at = first
        self._again(self._open)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end of the object."""
        piece: bytes = self._again(lambda: self._read(size))
        return piece

    def close(self) -> None:
        """Leave the connection."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _again(self, action: Callable[[], Any]) -> Any:
        what = f"GET {self._key}"
        while True:
            try:
                return action()
            except (*BROKEN, Damaged, TooSlow, boto.BotoCoreError, boto.ClientError) as error:
                self.close()
                raise_if_final(error, what)
                self._patience.wait(error, what)

    def _open(self) -> None:
        wanted: dict[str, Any] = {"Range": f"bytes={self._position}-"} if self._position else {}
        if self._etag is not None:
            wanted["IfMatch"] = self._etag
        answer = self._bucket._call("get_object", Key=self._key, **wanted)
        self._body, self._etag = answer["Body"], answer["ETag"]
        self._end = self._position + int(answer["ContentLength"])
        self._measured_at, self._measured_bytes, self._trickles = time.monotonic(), 0, False

    def _read(self, size: int) -> bytes:
        if self._position == self._end:
            return b""
        if self._trickles:
            raise TooSlow("the connection trickles")
        if self._body is None:
            self._open()
        piece: bytes = self._body._raw_stream.read1(min(size, self._end - self._position))
        if not piece:
            raise boto.IncompleteReadError(actual_bytes=self._position, expected_bytes=self._end)
        self._position += len(piece)
        self._measure(len(piece))
        return piece

    def _measure(self, count: int) -> None:
        """Patience is whole again after some progress; a connection that trickles is left before the next read."""
        if self._position - self._renewed_at >= CHUNK_BYTES // 4:
            self._patience.renew()
            self._renewed_at = self._position
        self._measured_bytes += count
        passed = time.monotonic() - self._measured_at
        if passed > self._bucket.place.timeout_s:
            self._trickles = self._measured_bytes < SLOWEST_BYTES_PER_S * passed
            self._measured_at, self._measured_bytes = time.monotonic(), 0


def require_whole(operation: str, answer: dict[str, Any]) -> None:
    """Raise Damaged for an answer that was cut off among its headers.

    Python takes the end of a connection there for the end of the headers, and what is left for a success with nothing
    in it: an empty list, for one, which would prove a deletion that did not happen.
    """
    about = answer.get("ResponseMetadata", {})
    headers = about.get("HTTPHeaders", {})
    has_end = "content-length" in headers or "transfer-encoding" in headers or about.get("HTTPStatusCode") == 204
    etag = answer.get("ETag", '""')
    if not has_end or any(name not in answer for name in NEEDED.get(operation, ())) or etag[:1] != etag[-1:]:
        raise Damaged("the answer was cut off")


def raise_if_final(error: Exception, what: str) -> None:
    """Raise as FileNotFoundError, NotImplementedError or StorageUnavailable what another try cannot mend."""
    if not isinstance(error, boto.ClientError):
        if isinstance(error, boto.BotoCoreError) and not isinstance(error, BROKEN):  # no credentials, a wrong setting
            raise StorageUnavailable(f"{what}: {_said(error)}") from error
        return
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in MISSING:
        raise FileNotFoundError(f"{what}: {code}") from error
    if code in ("NotImplemented", "MethodNotAllowed", "501", "405"):
        raise NotImplementedError(f"{what}: {code}") from error
    if status < 500 and status != 429 and code not in TRANSIENT:
        raise StorageUnavailable(f"{what} is refused: {code}") from error


def _said(error: Exception) -> str:
    """In a line, without the credentials or addresses that a longer message may have."""
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", "an error without a code"))
    return f"{type(error).__name__}" if not isinstance(error, Damaged | TooSlow) else str(error)


def _give_up(futures: Any) -> None:
    """Wait for what runs, drop what does not yet: nobody writes behind our back."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()


def _client_of(session: Any, place: Place, endpoint: str | None, timeout_s: float) -> Any:
    """Repeating is our own business (Patience), so botocore does not."""
    config = Config(
        signature_version="s3v4", connect_timeout=timeout_s, read_timeout=timeout_s, max_pool_connections=2 * THREADS,
        retries={"total_max_attempts": 1}, request_checksum_calculation="when_required",
        response_checksum_validation="when_required", tcp_keepalive=True,
        s3={"addressing_style": place.addressing, "payload_signing_enabled": True},
    )  # fmt: skip
    return session.client("s3", endpoint_url=endpoint, config=config)
