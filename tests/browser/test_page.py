"""The page as people meet it: a real server, a real browser. Skipped where Chromium is not installed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from balls import ball_head, two_frames
from browser import Browser

from mononphm_core.io.head_files import animated_glb
from mononphm_core.io.tables import ARKIT_52
from mononphm_core.types import Stage, StepReport
from tests.service.files import png
from tests.service.published import finished, published_for, waiting
from tests.service.test_process import Api
from worker.ledger import Failure, Job, Keys, Ledger

pytestmark = pytest.mark.slow
SHOTS = os.environ.get("MONONPHM_TEST_SHOTS")
"""A folder for pictures of the page, for human eyes."""


LONG_NAME = "a take with a name that is longer than a telephone is wide, the second one of Tuesday.mp4"


def a_result() -> tuple[dict[str, tuple[str, str, bytes]], dict[str, Any]]:
    """Files and facts of a two-frame clip; the second frame was not accepted."""
    sequence = two_frames()
    animation = animated_glb(ball_head(), sequence, np.broadcast_to(np.eye(4), (2, 4, 4)))
    rows = [["frame_index", "timestamp_s", *ARKIT_52], ["3", "0.1", *["0.1"] * 52], ["8", "0.35", *["0.9"] * 52]]
    files = {
        "animation.glb": ("animation", "model/gltf-binary", animation),
        "identity.npz": ("identity", "application/x-npz", b"who"),
        "expressions.npz": ("expressions", "application/x-npz", b"what"),
        "cameras.json": ("cameras", "application/json", b"{}"),
        "blendshapes.csv": ("blendshapes", "text/csv", "\n".join(",".join(row) for row in rows).encode()),
    }
    frames = [
        {"frame_index": index, "timestamp_s": seconds, "landmark_error_px": 1.5, "accepted": index == 3}
        for index, seconds in zip(sequence.frame_index, sequence.timestamp_s, strict=True)
    ]
    return files, {"quality": {"frames_accepted": 1, "frames_tracked": 2, "frames": frames}}


def failed(book: Ledger) -> Job:
    """A clip without a face."""
    job = waiting(book, filename="meadow.mp4")
    lease = book.claim("a-worker", job.id)
    assert lease is not None
    advice = "120 of 120 frames were searched and none shows a face. Send a clip in which one face is large and lit."
    lease.fail(Failure("no_face", "No face found", advice, "preprocessing", False))
    return job


def running(book: Ledger) -> Job:
    """A clip on its way."""
    job = waiting(book, filename="on its way.mp4")
    lease = book.claim("a-worker", job.id)
    assert lease is not None
    lease.report(StepReport(Stage.STAGE1, 7, 20, 7, 20))
    return job


class Site:
    """A server with one finished job, and a browser."""

    def __init__(self, api: Api, browser: Browser, job: Job, failed: Job, running: Job) -> None:
        self.url, self.browser, self.job = api.url, browser, job
        self.pages = {
            "home": "/", "result": f"/r/{job.id}", "failed": f"/r/{failed.id}", "running": f"/r/{running.id}",
            "gone": "/r/rec_00000000000000000000000000",
        }  # fmt: skip

    def show(self, name: str) -> Browser:
        """One of the pages, complete."""
        self.browser.open(self.url + self.pages[name])
        self.browser.until(COMPLETE[name])
        return self.browser

    def result(self) -> Browser:
        self.browser.complaints.clear()
        self.browser.open(f"{self.url}/r/{self.job.id}")
        self.browser.until("document.body.dataset.head === 'shown'")
        return self.browser

    def complaints(self) -> list[str]:
        """What the console says, but for the readiness of a worker that these tests do not start."""
        return [text for text in self.browser.complaints if "/health/ready" not in text]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with Browser(folder) as browser:
        api = Api(folder)
        book = Ledger(None, api.data)
        files, facts = a_result()
        try:
            finished(book, files, filename=LONG_NAME, **facts)
            done = finished(book, files, **facts)
            yield Site(api, browser, done, failed(book), running(book))
        finally:
            book.close()
            api.process.kill()
            api.process.wait()


def shoot(browser: Browser, name: str) -> None:
    if SHOTS:
        browser.screenshot(Path(SHOTS) / f"{name}.png")


def test_the_head_is_drawn_and_the_console_is_silent(site):
    """Pixels, not promises: the middle of the canvas is not the ground's colour."""
    site.browser.size(1280, 900)
    browser = site.result()
    drawn = browser.ask(
        "(async () => { const view = document.getElementById('view');"
        " const pen = document.createElement('canvas').getContext('2d');"
        " document.getElementById('reset').click(); await new Promise(requestAnimationFrame);"
        " pen.drawImage(view, view.width / 2, view.height / 2, 9, 9, 0, 0, 9, 9);"
        " return Array.from(pen.getImageData(4, 4, 1, 1).data); })()"
    )
    assert drawn[3] == 255
    assert max(drawn[:3]) > 40
    assert site.complaints() == []
    shoot(browser, "result")


def test_scrubbing_says_which_frame_it_is_and_whether_to_trust_it(site):
    """Frame number, the clip's own time, and the flag in words, for eyes and for screen readers alike."""
    browser = site.result()
    assert "Frame 3" in browser.ask("document.getElementById('frame-said').textContent")
    browser.ask("document.getElementById('slider').focus()")
    browser.key("ArrowRight")
    browser.until("document.getElementById('frame-said').textContent.includes('Frame 8')")
    said = browser.ask("document.getElementById('slider').getAttribute('aria-valuetext')")
    assert "0.35 s" in said and "not accepted" in said
    assert browser.ask("document.querySelectorAll('#strip .yes').length") == 1
    # The table comes after the head.
    browser.until("document.getElementById('curve-names').textContent.includes('0.90')")


def test_it_plays_and_pauses_by_keyboard(site):
    """Space on the view, as in every player."""
    browser = site.result()
    browser.ask("document.getElementById('view').focus()")
    browser.key(" ")
    browser.until("document.getElementById('frame-said').textContent.includes('Frame 8')")
    browser.key(" ")
    browser.until("document.getElementById('play').getAttribute('aria-label') === 'Play'")
    assert site.complaints() == []


def test_looks_can_be_chosen_and_exactly_one_is_pressed(site):
    """Texture, shape, triangles."""
    browser = site.result()
    pressed = "[...document.querySelectorAll('#looks [aria-pressed=true]')].map((button) => button.textContent)"
    assert browser.ask(pressed) == ["Texture"]
    for name in ("Shape", "Triangles", "Texture"):
        browser.ask(f"[...document.querySelectorAll('#looks button')].find((b) => b.textContent === '{name}').click()")
        assert browser.ask(pressed) == [name]
    assert site.complaints() == []


COMPLETE = {
    "home": "document.querySelector('.jobs a') && document.getElementById('limits').textContent.includes('Up to')",
    "result": "document.body.dataset.head === 'shown' && document.getElementById('curve-names').children.length > 0"
    " && document.querySelectorAll('#actor option').length > 0",
    "failed": "!document.getElementById('problem').hidden",
    "running": "document.querySelector('.stages .now') !== null",
    "gone": "!document.getElementById('problem').hidden",
}
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
VIOLATIONS = """
axe.run().then((found) =>
  JSON.stringify(found.violations.map((rule) => [rule.id, rule.nodes.map((node) => node.html)])))
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_accessibility_checker_finds_nothing(site, width, dark):
    """axe-core on every page in every state: names, roles, contrast, order, focus; and nothing is cut off."""
    if not AXE.is_file():
        pytest.skip("axe-core needs `npm ci` in tests/browser; scripts/setup.sh does it where npm is")
    site.browser.size(width, 844, dark=dark, touch=width < 500)
    try:
        for name in site.pages:
            browser = site.show(name)
            shoot(browser, f"{name}-{width}-{'dark' if dark else 'light'}")
            browser.ask(f"{AXE.read_text('utf-8')}; 0")
            assert json.loads(browser.ask(VIOLATIONS)) == [], name
            assert browser.ask("document.documentElement.scrollWidth") <= width
            nameless = [role for role, label in browser.accessible() if role in SPOKEN and not label.strip()]
            assert nameless == []
    finally:
        site.browser.size(1280, 900)


SPOKEN = {"button", "link", "slider", "image", "img", "combobox", "textbox", "spinbutton", "progressbar", "checkbox"}


def test_headings_are_in_order(site):
    """One first heading, no level skipped; and the page says its language."""
    for name in site.pages:
        browser = site.show(name)
        levels = [int(level) for level in browser.ask(HEADINGS)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        assert browser.ask("document.documentElement.lang") == "en"


HEADINGS = (
    "[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.checkVisibility()).map((h) => h.tagName.slice(1))"
)


def test_a_file_is_sent_and_its_job_is_shown(site, tmp_path):
    """Limits before, progress during, the job's own page after; the server queues it."""
    browser = site.browser
    browser.open(f"{site.url}/")
    assert "Up to" in browser.until("document.getElementById('limits').textContent.trim()")
    picture = tmp_path / "someone.png"
    picture.write_bytes(png())
    browser.choose_file("#file", picture)
    browser.until("location.pathname.startsWith('/r/')")
    browser.until("document.getElementById('title').textContent === 'someone.png'")
    assert browser.until("document.getElementById('state')?.textContent") == "waiting"
    shoot(browser, "waiting")


def test_an_upload_goes_on_where_the_connection_broke(site, tmp_path):
    """The page is closed in the middle; the same file, chosen again, starts at the server's offset, not at zero."""
    browser = site.browser
    clip = tmp_path / "long.mp4"
    clip.write_bytes(bytes(9 << 20))
    browser.open(f"{site.url}/")
    browser.ask(
        "(() => { const send = XMLHttpRequest.prototype.send; let pieces = 0;"
        " XMLHttpRequest.prototype.send = function (body) { pieces += 1; if (pieces < 2) send.call(this, body); }; })()"
    )
    browser.choose_file("#file", clip)
    address = browser.until("Object.entries(localStorage).filter(([k]) => k.includes('long.mp4')).map(([, v]) => v)[0]")
    head = f"fetch('{address}', {{method: 'HEAD', headers: {{'Tus-Resumable': '1.0.0'}}}})"
    browser.until(f"(async () => Number((await {head}).headers.get('Upload-Offset')) === {4 << 20})()")
    shoot(browser, "uploading")
    browser.open(f"{site.url}/")
    browser.ask(
        "(() => { window.offsets = []; const set = XMLHttpRequest.prototype.setRequestHeader;"
        " XMLHttpRequest.prototype.setRequestHeader = function (name, value) {"
        " if (name === 'Upload-Offset') window.offsets.push(Number(value)); set.call(this, name, value); }; })()"
    )
    browser.choose_file("#file", clip)
    words = browser.until(
        "!document.getElementById('problem').hidden && document.getElementById('problem').textContent"
    )
    assert "media" in words.lower()  # nine megabytes of zeros are no film
    assert browser.ask("window.offsets") == [4 << 20, 8 << 20]
    assert browser.ask("Object.keys(localStorage).length") == 0


def test_another_clip_can_be_chosen_to_act_with_this_head(site):
    """The picker offers the other finished clip of the same model, and its button makes a job of the two."""
    browser = site.result()
    browser.until("document.querySelectorAll('#actor option').length === 1")
    here = browser.ask("location.pathname")
    browser.ask("document.querySelector('#acting button').click()")
    browser.until(f"location.pathname !== '{here}' && location.pathname.startsWith('/r/')")
    assert browser.until("document.getElementById('state')?.textContent") == "waiting"


def test_what_cannot_be_read_is_refused_in_words(site, tmp_path):
    """A title, and what to do next; no code, no stack."""
    browser = site.browser
    browser.open(f"{site.url}/")
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    browser.choose_file("#file", text)
    words = browser.until(
        "!document.getElementById('problem').hidden && document.getElementById('problem').textContent"
    )
    assert len(words) > 30 and "{" not in words
    assert browser.ask("location.pathname") == "/"


@pytest.fixture
def locked(tmp_path: Path, site: Site) -> Iterator[tuple[Site, str, str]]:
    """A server that asks for keys, with a job of its only owner, and that owner's key."""
    api = Api(tmp_path, MONONPHM_REQUIRE_KEYS="1")
    book = Ledger(None, api.data)
    try:
        _, text = Keys(book).create("guest", ("read",), owner="me")
        files, facts = a_result()
        yield site, f"{api.url}/r/{published_for(book, 'me', files, **facts).id}", text
    finally:
        book.close()
        api.process.kill()
        api.process.wait()


def test_a_shared_link_brings_its_key_and_without_one_the_page_asks(locked):
    """With the link the head is shown, the key leaves the address line, and Share offers the same kind of link."""
    site, address, key = locked
    browser = site.browser
    browser.open(address)
    browser.until("document.querySelector('dialog.key-box[open]') !== null")
    shoot(browser, "key-asked")
    browser.open("about:blank")
    browser.open(f"{address}#key={key}")
    browser.until("document.body.dataset.head === 'shown'")
    assert browser.ask("location.hash") == ""
    browser.ask("document.getElementById('share').click()")
    browser.ask(
        "(() => { const field = document.getElementById('share-key'); field.value = 'key_a.b';"
        " field.dispatchEvent(new Event('input')); })()"
    )
    assert browser.ask("document.getElementById('share-link').value") == f"{address}#key=key_a.b"
    shoot(browser, "share")
