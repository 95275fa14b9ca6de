"""A published checkpoint is opened without executing anything of it, or refused with a reason."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
import yaml

from mononphm_core.errors import AssetError
from mononphm_core.io import checkpoint_process
from mononphm_core.io.checkpoint_child import decoders_in, plain_configuration
from mononphm_core.io.checkpoint_process import CheckpointLimits, read_checkpoint
from mononphm_core.io.decoder_protocol import Refusal
from tests.core.model.test_published import anchors_for
from tests.golden.checkpoints import document_of, random_states, small, write_experiment

CONFIG = small()


class Hostile:
    """Unpickled by an unlimited reader, it runs a shell command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(
        tmp_path / "mini", document_of(CONFIG), random_states(CONFIG, seed=2), anchors_for(CONFIG), ckpt=12
    )


def checkpoint(folder):
    return folder / "checkpoints" / "checkpoint_epoch_12.tar"


def saved(value) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


# ---- in the limited process ------------------------------------------------------------------------------------------


def test_both_decoders_come_back_bit_for_bit_and_the_rest_is_named(experiment):
    """Optimiser states, tuples and NumPy numbers in them are no obstacle; they are not read."""
    read = read_checkpoint(checkpoint(experiment), experiment / "configs.yaml")
    for section, state in random_states(CONFIG, seed=2).items():
        assert set(read.states[section]) == set(state)
        for name, value in state.items():
            assert torch.equal(read.states[section][name], value)
    assert (read.epoch, read.ignored) == (12, ("optimizer", "optimizer_lat"))
    assert read.configuration == document_of(CONFIG)


def test_a_pickle_that_would_run_a_command_runs_nothing_and_is_refused(experiment, tmp_path):
    """The marker file would be written by any reader that trusts the file."""
    marker = tmp_path / "executed"
    states = random_states(CONFIG, seed=2)
    write_experiment(
        experiment, document_of(CONFIG), states, anchors_for(CONFIG), 12, optimizer=Hostile(f"touch {marker}")
    )
    with pytest.raises(AssetError, match="nothing of it was executed.*system"):
        read_checkpoint(checkpoint(experiment), experiment / "configs.yaml")
    assert not marker.exists()


def test_the_process_that_reads_can_open_no_file_and_is_bounded(experiment, monkeypatch):
    """What it may do is applied before the first byte is looked at, and told to the parent."""
    said = []
    listen = checkpoint_process._listen
    monkeypatch.setattr(checkpoint_process, "_listen", lambda *a: said.append(listen(*a)) or said[0])
    read_checkpoint(checkpoint(experiment), experiment / "configs.yaml")
    confined = said[0][0]["confined"]
    assert confined["no_new_privs"] and confined["no_new_files"]


@pytest.mark.parametrize(
    "limits",
    [CheckpointLimits(wall_seconds=0.05), CheckpointLimits(base_memory_bytes=256 << 20)],
    ids=["time", "memory"],
)
def test_a_file_that_costs_too_much_ends_the_process_and_not_the_program(experiment, limits):
    """The limit is met while the process starts: what happens then is the same at any later moment."""
    with pytest.raises(AssetError, match="ended the limited process|needs more memory|cannot be read"):
        read_checkpoint(checkpoint(experiment), experiment / "configs.yaml", limits)


# ---- before it starts ------------------------------------------------------------------------------------------------


def test_missing_and_oversized_files_are_refused_before_anything_is_started(experiment):
    """Cheap checks first."""
    with pytest.raises(AssetError, match=r"checkpoint_epoch_9\.tar is missing"):
        read_checkpoint(checkpoint(experiment).with_name("checkpoint_epoch_9.tar"), experiment / "configs.yaml")
    with pytest.raises(AssetError, match="more than the 1000 that are read"):
        read_checkpoint(checkpoint(experiment), experiment / "configs.yaml", CheckpointLimits(max_bytes=1000))
    (experiment / "configs.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(AssetError, match="no text"):
        read_checkpoint(checkpoint(experiment), experiment / "configs.yaml")


# ---- what it says of hostile bytes, in this process: the limits need no second proof --------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(experiment, share):
    """The usual damage: a download that stopped."""
    whole = checkpoint(experiment).read_bytes()
    with pytest.raises(Refusal, match="cut off"):
        decoders_in(io.BytesIO(whole[: int(share * len(whole))]))


@pytest.mark.parametrize("end", ["data.pkl", "data/0", "data/7"])
def test_one_flipped_bit_anywhere_is_refused(experiment, end):
    """torch reads a damaged weight as another number; the archive's own checksums, which it writes, know better."""
    whole = bytearray(checkpoint(experiment).read_bytes())
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith(end))
        content = archive.read(member)
    start = whole.index(content, member.header_offset)
    for place in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(whole)
        damaged[start + place] ^= 0x10
        with pytest.raises(Refusal, match=rf"{end}' is damaged"):
            decoders_in(io.BytesIO(damaged))


def test_an_archive_without_checksums_is_read(experiment):
    """An option of torch leaves them out to save time."""
    saved = torch.load(checkpoint(experiment), weights_only=False)  # this test wrote it
    buffer = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(saved, buffer)
    finally:
        torch.serialization.set_crc32_options(True)
    found, blobs = decoders_in(buffer)
    same, expected = decoders_in(io.BytesIO(checkpoint(experiment).read_bytes()))
    assert found == same
    assert all(np.array_equal(a, b) for a, b in zip(blobs, expected, strict=True))


def test_a_zip_bomb_is_refused_by_its_directory():
    """Torch stores; whoever compresses wants something else."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (8 << 20))
    with pytest.raises(Refusal, match="is compressed"):
        decoders_in(bomb)


def test_members_that_overlap_are_refused():
    """Many members over the same bytes: the other kind of bomb."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 50_000)
        member = archive.infolist()[0]
        for _ in range(20):
            archive.filelist.append(member)
    with pytest.raises(Refusal, match="more bytes than the file has"):
        decoders_in(buffer)


def test_a_program_of_torchscript_is_refused():
    """It is code by design."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/code/__torch__.py", "def f(): ...")
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
    with pytest.raises(Refusal, match="TorchScript"):
        decoders_in(buffer)


@pytest.mark.parametrize("payload", [eval, print, Hostile("true"), np.random.default_rng(0), torch.nn.Linear(2, 2)])
def test_no_name_outside_tensors_and_plain_values_is_looked_up(payload):
    """Functions, generators, whole modules: each is a global of the pickle, and refused as such."""
    with pytest.raises(Refusal, match="nothing of it was executed"):
        decoders_in(saved({"id_decoder": {}, "ex_decoder": {}, "extra": payload}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list"),
        ({"model": {}}, r"no state dict id_decoder \(its entries: model\)"),
        ({"id_decoder": {}, "ex_decoder": [1]}, "no state dict ex_decoder"),
        ({"id_decoder": {"a": 3}, "ex_decoder": {}}, "id_decoder.a is a int, not a tensor"),
        ({"id_decoder": {3: torch.zeros(1)}, "ex_decoder": {}}, "no tensor name"),
        ({"id_decoder": {"a": torch.zeros(1).expand(10**9)}, "ex_decoder": {}}, "more than the file stores"),
        ({"id_decoder": {"a": torch.eye(3).to_sparse()}, "ex_decoder": {}}, "id_decoder.a is no plain tensor"),
        (
            {"id_decoder": {"a": torch.zeros(2, dtype=torch.cfloat)}, "ex_decoder": {}},
            "id_decoder.a is no plain tensor",
        ),
    ],
)
def test_entries_that_are_no_plain_tensors_are_named(content, reason):
    """Each with its section and key, before a byte of it is copied."""
    with pytest.raises(Refusal, match=reason):
        decoders_in(saved(content))


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.system [true]", "a: &a [*a]", "when: 2024-01-01"])
def test_a_configuration_that_is_no_plain_yaml_is_refused(text):
    """Tags that construct objects, documents that contain themselves, values without a JSON form."""
    with pytest.raises(Refusal, match=r"no plain YAML"):
        plain_configuration(text)
    assert plain_configuration(yaml.safe_dump(document_of(CONFIG))) == document_of(CONFIG)
