"""A FLAME-like file as a source of training people. It is made from the average head, so that all truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from mononphm_cli import main
from mononphm_core.animation.topology import LEFT_EYE, RIGHT_EYE
from mononphm_core.training.people import read_people, without_motion
from mononphm_core.training.registration import similarity
from tests.core.preprocessing.flames import flame_arrays, write
from tests.core.training.bent import bent_head, waves

SHAPES = 10


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """`mononphm train people` on a head of 14,000 vertices with ten smooth shapes, carried to one of 4,000."""
    folder, head = tmp_path_factory.mktemp("flame"), bent_head()
    template, topology = head.template, head.topology
    balls = [np.flatnonzero(topology.part == side) for side in (LEFT_EYE, RIGHT_EYE)]
    x = np.concatenate([template.x, *(topology.mean[ball] * 25.0 for ball in balls)])
    part = np.concatenate([topology.part[head.birth], *(topology.part[ball] for ball in balls)])
    first = np.argsort(part, kind="stable")  # as in the real file: skin by parts, then eyeballs
    place = np.argsort(first)
    np.savez(
        folder / "ict_facekit.npz", neutral=x[first].astype(np.float32), tri=place[template.triangles].astype(np.int32),
        vert_part=part[first].astype(np.uint8), ibug68_jaw_alt=place[template.marks],
    )  # fmt: skip
    shapes = [waves(20 + k, head.true, 0.3) for k in range(SHAPES)]
    moved = np.stack([0.01 * shape(head.true) @ head.turn.T for shape in shapes], -1)
    count = len(head.source.x)
    arrays = flame_arrays(vertices=count) | {
        "v_template": head.source.x, "f": head.source.triangles.astype(np.uint32),
        "shapedirs": np.concatenate([moved, np.zeros((count, 3, 10))], -1),
    }  # fmt: skip
    landmarks = {"faces_idx": head.source.mark_triangle, "barycentrics": head.source.mark_share}
    write(folder / "flame.pkl", arrays)
    write(folder / "landmarks.npz", landmarks)
    mixed = landmarks | {"faces_idx": np.roll(landmarks["faces_idx"], 20)}
    write(folder / "mixed.npz", mixed)
    assert run(folder) == 0
    return SimpleNamespace(head=head, folder=folder, shapes=shapes, place=place)


def run(folder, **other):
    given = {"flame": folder / "flame.pkl", "landmarks": folder / "landmarks.npz", "to": folder} | other
    return main.run(["train", "people", *(word for name, value in given.items() for word in (f"--{name}", str(value)))])


def test_people_of_the_file_arrive_with_their_shapes(carried):
    """Each component against the field it was made of, where FLAME has skin: a seventh of its size at most."""
    head, template = carried.head, carried.head.template
    people = read_people(carried.folder / "people_flame.npz", len(template.x))
    order = carried.place[: len(template.x)]
    mean, components = people.mean[order], people.components[:, order]
    true = template.x + head.field(template.x)
    marks = template.marks[17:]
    scale, turn, shift = similarity(true[marks], template.x[marks])
    off = 10 * np.linalg.norm(scale * true @ turn.T + shift - template.x - mean, axis=1)
    near = np.linalg.norm(template.x[:, None] - template.x[template.marks[17:]], axis=-1).min(1) < 1.0
    assert off[template.outer & near].mean() < 1.5
    fields = np.stack([scale * shape(true) @ turn.T for shape in carried.shapes])
    fields = without_motion(fields, scale * true @ turn.T + shift, template.outer)
    wrong = np.linalg.norm(components - fields, axis=-1)[:, template.outer & near]
    size = np.linalg.norm(fields, axis=-1)[:, template.outer & near]
    assert np.sqrt(np.square(wrong).mean() / np.square(size).mean()) < 0.15
    assert "FLAME's own licence" in people.licence


def test_landmarks_of_another_order_are_refused(carried, capsys):
    """Exit code 4, and what to give instead; a DATA without ICT-FaceKit's file says what makes it."""
    assert run(carried.folder, landmarks=carried.folder / "mixed.npz") == 4
    assert "iBUG-68 in their order" in capsys.readouterr().err
    (carried.folder / "empty").mkdir()
    assert run(carried.folder, to=carried.folder / "empty") == 4
    assert "mononphm train data" in capsys.readouterr().err
