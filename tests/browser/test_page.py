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
from tests.service.files import png
from tests.service.published import finished
from tests.service.test_process import Api
from worker.ledger import Job, Ledger

pytestmark = pytest.mark.slow
SHOTS = os.environ.get("MONONPHM_TEST_SHOTS")
"""A folder for pictures of the page, for human eyes."""


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


class Site:
    """A server with one finished job, and a browser."""

    def __init__(self, api: Api, browser: Browser, job: Job) -> None:
        self.url, self.browser, self.job = api.url, browser, job

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
            finished(book, files, **facts)
            yield Site(api, browser, finished(book, files, **facts))
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
    assert "0.90" in browser.ask("document.getElementById('curve-names').textContent")


def test_it_plays_and_pauses_by_keyboard(site):
    """Space on the view, as in every player."""
    browser = site.result()
    browser.ask("document.getElementById('view').focus()")
    browser.key(" ")
    browser.until("document.getElementById('frame-said').textContent.includes('Frame 8')")
    browser.key(" ")
    assert browser.ask("document.getElementById('play').getAttribute('aria-label')") == "Play"
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


def test_every_control_has_a_name_and_headings_are_in_order(site):
    """What a screen reader meets: no nameless button, link, slider or picture; one first heading, no level skipped."""
    for path in ("/", f"/r/{site.job.id}"):
        site.browser.open(site.url + path)
        site.browser.until(LOADED)
        nameless = [role for role, name in site.browser.accessible() if role in SPOKEN and not name.strip()]
        assert nameless == []
        levels = [int(level) for level in site.browser.ask(HEADINGS)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        assert site.browser.ask("document.documentElement.lang") == "en"


LOADED = "document.querySelector('.jobs a, [data-head=shown]') !== null"
SPOKEN = {"button", "link", "slider", "image", "img", "combobox", "textbox", "spinbutton", "progressbar", "checkbox"}
HEADINGS = (
    "[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.checkVisibility()).map((h) => h.tagName.slice(1))"
)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground_on_a_phone_and_nothing_is_cut_off(site, dark):
    """390 pixels wide: no sideways scrolling; and 4.5 : 1 of contrast (WCAG 2.2, 1.4.3) for words on both pages."""
    site.browser.size(390, 844, dark=dark, touch=True)
    try:
        for name, path in (("home", "/"), ("result", f"/r/{site.job.id}")):
            site.browser.open(site.url + path)
            site.browser.until(LOADED)
            shoot(site.browser, f"phone-{name}-{'dark' if dark else 'light'}")
            assert site.browser.ask("document.documentElement.scrollWidth") <= 390
            assert json.loads(site.browser.ask(CONTRAST)) == []
    finally:
        site.browser.size(1280, 900)


CONTRAST = """
(() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const node of document.querySelectorAll("main *, header *")) {
    const words = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!words || !node.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push([node.textContent.trim().slice(0, 30), ratio.toFixed(2)]);
  }
  return JSON.stringify(faint);
})()
"""


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
