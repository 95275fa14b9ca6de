"""What a job delivered: the bytes, ranges of them, everything in one archive, codes as tables."""

import csv
import functools
import hashlib
import io
import operator
import re
import zipfile
from email.message import EmailMessage

import pytest

from service.delivery import content_disposition, requested_span
from service.problems import Problem
from tests.service.published import EXPRESSIONS, finished, ordinary_files, path_of, waiting

pytestmark = pytest.mark.anyio

DATA = ordinary_files()["identity.npz"][2]
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'


@pytest.fixture
def job(book):
    return finished(book, ordinary_files())


@pytest.fixture
def url(job):
    return f"/reconstructions/{job.id}/artifacts/identity.npz"


async def test_every_listed_file_has_the_announced_size_and_checksum(api, job):
    """The list is what a client verifies its download with."""
    items = (await api.get(f"/reconstructions/{job.id}/artifacts")).json()["items"]
    assert {item["name"] for item in items} == {*ordinary_files(), "manifest.json"}
    for item in items:
        answer = await api.get(item["href"])
        assert answer.status_code == 200
        assert len(answer.content) == item["bytes"] == int(answer.headers["content-length"])
        assert hashlib.sha256(answer.content).hexdigest() == item["sha256"]
        assert answer.headers["etag"] == f'"{item["sha256"]}"'
        assert answer.headers["content-type"] == item["media_type"]
        assert answer.headers["content-disposition"].startswith("attachment")


async def test_head_has_the_headers_of_get_and_no_body(api, url):
    got, head = await api.get(url), await api.head(url)
    assert head.status_code == 200 and head.content == b""
    for name in ("content-length", "etag", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == got.headers[name]


SIZE = len(DATA)
RANGES = {
    "bytes=0-0": slice(0, 1),
    "bytes=0-99": slice(0, 100),
    "bytes=100-": slice(100, None),
    "bytes=-7": slice(-7, None),
    "bytes=5-999999999": slice(5, None),
    "bytes=-999999999": slice(0, None),
    f"bytes={SIZE - 1}-": slice(-1, None),
}


@pytest.mark.parametrize("header", RANGES)
async def test_a_range_is_that_slice_of_the_file(api, url, header):
    """Python's slices are the oracle."""
    answer = await api.get(url, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == DATA[RANGES[header]]
    first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"]).groups())
    assert DATA[first : last + 1] == answer.content and size == SIZE
    head = await api.head(url, headers={"Range": header})
    assert (head.status_code, head.headers["content-range"]) == (206, answer.headers["content-range"])


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0", "bytes=999999999999-"])
async def test_a_range_outside_the_file_is_416_with_the_size(api, url, header):
    answer = await api.get(url, headers={"Range": header})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=x-y", "bytes", "lines=0-5", "bytes=-", "bytes=0-1,5-9", "bytes=" + "9" * 40 + "-"]
)
async def test_a_range_that_is_not_understood_is_ignored(api, url, header):
    """RFC 9110: an invalid Range, or several ranges, may be answered with everything."""
    answer = await api.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_if_range_resumes_only_the_same_file(api, url):
    """A file that changed must come whole, never as the rest of another one."""
    same = await api.get(url, headers={"Range": "bytes=10-", "If-Range": ETAG})
    assert (same.status_code, same.content) == (206, DATA[10:])
    for other in ('"other"', f"W/{ETAG}", "Sun, 22 Nov 2026 21:00:00 GMT"):
        answer = await api.get(url, headers={"Range": "bytes=10-", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize(
    "header,status", [(ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), (f'"a", {ETAG}', 304), ('"a"', 200)]
)
async def test_what_the_client_has_is_not_sent_again(api, url, header, status):
    answer = await api.get(url, headers={"If-None-Match": header})
    assert answer.status_code == status
    assert answer.headers["etag"] == ETAG
    assert answer.content == (b"" if status == 304 else DATA)


def test_an_empty_file_has_no_range():
    """Every range of nothing is outside."""
    assert requested_span(None, 0) is None
    with pytest.raises(Problem):
        requested_span("bytes=0-", 0)


TRAVERSALS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/ledger.sqlite3",
    "/etc/passwd",
    "//etc/passwd",
    "meshes/../identity.npz",
    "meshes/%2e%2e/identity.npz",
    "./identity.npz",
    "identity.npz/",
    "identity.npz%00.png",
    "meshes",
    "meshes/",
    "",
    "identity.npz\\..\\x",
    "..%5c..%5cledger.sqlite3",
    "%252e%252e/x",
    "identity.npz%0d%0aX: 1",
    "IDENTITY.NPZ",
    "x" * 5000,
]


@pytest.mark.parametrize("name", TRAVERSALS, ids=range(len(TRAVERSALS)))
async def test_only_names_of_the_list_lead_to_a_file(api, job, settings, name):
    """The name is looked up in the database; the disk is never asked for a name that came from outside."""
    (settings.data_dir / "artifacts" / job.id / str(job.published_fence) / "unlisted").write_bytes(b"secret")
    for wanted in (name, "unlisted"):
        answer = await api.get(f"/reconstructions/{job.id}/artifacts/{wanted}")
        if answer.status_code == 200:  # the client itself resolved the dots before it asked
            assert answer.request.url.path.endswith(("/artifacts/identity.npz", "/artifacts"))
        else:
            assert answer.status_code == 404
        assert b"secret" not in answer.content and b"root:" not in answer.content


async def test_the_files_of_another_job_are_not_mine(api, book, job):
    other = finished(book, {"only-here.json": ("x", "application/json", b"{}")})
    assert (await api.get(f"/reconstructions/{other.id}/artifacts/only-here.json")).status_code == 200
    assert (await api.get(f"/reconstructions/{job.id}/artifacts/only-here.json")).status_code == 404


NAMES = [
    "a.ply",
    "meshes/frame 1.ply",
    'x"; filename="evil.exe',
    "a\r\nSet-Cookie: x=1",
    "ファイル.glb",
    "naïve.png",
    "a;b=c.npz",
    "\u202egpj.exe",
    "%22.png",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_file_name_breaks_out_of_its_header(name):
    """An independent parser of the standard library must find one value, the base name, and no second parameter."""
    header = content_disposition(name)
    assert header.isascii() and header.isprintable()
    message = EmailMessage()
    message["Content-Disposition"] = header.split("; ", 2)[0] + "; " + header.split("; ")[-1]
    assert message.get_filename() == name.rsplit("/", 1)[-1].replace("\r\n", "\r\n")
    assert header.count('"') == 2
    assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9._ -]*\"; filename\*=UTF-8''[A-Za-z0-9._~%-]*", header)


async def test_a_job_that_has_not_succeeded_has_an_empty_list_and_says_so(api, book):
    job = waiting(book)
    assert (await api.get(f"/reconstructions/{job.id}/artifacts")).json() == {"items": []}
    for tail in ("artifacts/manifest.json", "artifacts.zip", "expressions"):
        answer = await api.get(f"/reconstructions/{job.id}/{tail}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
        assert "queued" in answer.json()["detail"]


async def test_the_archive_holds_every_file_under_one_folder(api, job):
    answer = await api.get(f"/reconstructions/{job.id}/artifacts.zip")
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    files = {name: content for name, (_, _, content) in ordinary_files().items()}
    for name, content in files.items():
        assert archive.read(f"{job.id}/{name}") == content
    assert set(archive.namelist()) == {f"{job.id}/{name}" for name in [*files, "manifest.json"]}
    assert (await api.get(f"/reconstructions/{job.id}/artifacts.zip")).content == answer.content


async def test_the_codes_come_as_delivered_or_as_a_table(api, job):
    """The table is the same numbers: a row a frame, matrices spread row by row."""
    as_json = await api.get(f"/reconstructions/{job.id}/expressions")
    assert as_json.json() == EXPRESSIONS
    answer = await api.get(f"/reconstructions/{job.id}/expressions", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 3
    for row, frame in zip(rows, EXPRESSIONS["frames"], strict=True):
        assert [float(row[f"z_exp_{k}"]) for k in range(2)] == frame["z_exp"]
        assert [float(row[f"rotation_{k}"]) for k in range(9)] == functools.reduce(operator.iadd, frame["rotation"], [])
        assert float(row["timestamp_s"]) == frame["timestamp_s"]


async def test_arkit_curves_are_there_where_the_model_maps_to_them(api, book, job):
    """And are never invented where it does not."""
    assert (await api.get(f"/reconstructions/{job.id}/expressions", params={"space": "arkit"})).status_code == 404
    table = b"frame_index,jawOpen\n0,0.5\n1,0.25\n"
    mapped = finished(book, {"blendshapes.csv": ("blendshapes", "text/csv", table)})
    as_json = await api.get(f"/reconstructions/{mapped.id}/expressions", params={"space": "arkit"})
    assert as_json.json() == {"columns": ["frame_index", "jawOpen"], "rows": [[0.0, 0.5], [1.0, 0.25]]}
    as_csv = await api.get(f"/reconstructions/{mapped.id}/expressions", params={"space": "arkit", "format": "csv"})
    assert as_csv.content == table


async def test_an_unknown_format_is_refused(api, job):
    for params in ({"format": "xml"}, {"space": "flame"}):
        assert (await api.get(f"/reconstructions/{job.id}/expressions", params=params)).status_code == 422


async def test_a_file_that_vanished_is_404_and_no_trace(api, book, job):
    """The janitor may be faster than a download."""
    path_of(book, job, "identity.npz").unlink()
    answer = await api.get(f"/reconstructions/{job.id}/artifacts/identity.npz")
    assert (answer.status_code, answer.json()["code"]) == (404, "artifact_not_found")
