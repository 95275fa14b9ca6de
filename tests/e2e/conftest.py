"""One real server for all: API, worker and its child on a free port with a private data directory."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from e2e import Delivered
from PIL import Image
from skimage import data

from mononphm_cli.local_server import LocalServer
from mononphm_cli.probes import write_clip
from mononphm_core.io import registry


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that is ready; everything it started is gone afterwards."""
    assert registry.list_models(), "no head prior is installed: nothing can be reconstructed"
    with LocalServer() as running:
        running.wait_until_ready()
        yield running.url


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NASA's portrait of Eileen Collins, public domain, as scikit-image ships it: 512 x 512."""
    path = tmp_path_factory.mktemp("inputs") / "portrait.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture(scope="session")
def moving_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portrait's upper part seen by a camera that pans 6 px a frame: 5 frames of 320 x 320."""
    picture = data.astronaut()
    path = tmp_path_factory.mktemp("inputs") / "pan.mp4"
    write_clip(path, [np.ascontiguousarray(picture[:320, 60 + 6 * n : 380 + 6 * n]) for n in range(5)], fps=10)
    with av.open(str(path)) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 5
    return path


@pytest.fixture(scope="session")
def empty_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of coffee: sharp, colourful, and nobody there."""
    path = tmp_path_factory.mktemp("inputs") / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


@pytest.fixture(scope="session")
def still(server: str, portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """The portrait, reconstructed."""
    return Delivered(server, portrait, tmp_path_factory.mktemp("still"), seed=1)


@pytest.fixture(scope="session")
def clip(server: str, moving_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """Two frames of the moving clip, reconstructed."""
    return Delivered(server, moving_clip, tmp_path_factory.mktemp("clip"), max_frames=2)
