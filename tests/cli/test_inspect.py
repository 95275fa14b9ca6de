"""`mononphm inspect`: the contact sheet of what preprocessing saw."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from mononphm_cli import main


def test_a_sheet_shows_each_frame_and_its_figures(tmp_path, capsys):
    """One command from a file to a picture that a person can judge, and the same facts for a program."""
    photo, sheet = tmp_path / "astronaut.png", tmp_path / "sheet.png"
    Image.fromarray(data.astronaut()).save(photo)
    assert main.run(["inspect", str(photo), "--to", str(sheet), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [frame["frame_index"] for frame in facts["frames"]] == [0]
    assert facts["missed"] == []
    assert 0.5 < facts["frames"][0]["weight"] <= 1.0
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] == 384
    green = (picture[..., 1] > 180) & (picture[..., 2] < 90) & (picture[..., 0] < 120)
    assert green.sum() > 300  # confident landmarks and the border of the skin


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--to"], 2)])
def test_without_a_place_for_the_sheet_it_is_a_usage_error(tmp_path, arguments, code):
    """A sheet must go somewhere."""
    photo = tmp_path / "x.png"
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(photo)
    assert main.run(["inspect", str(photo), *arguments]) == code
