"""Checkpoints: everything comes back to the bit, and nothing that is damaged is taken."""

from __future__ import annotations

import errno
import json
import pickletools

import pytest
import torch
from safetensors.torch import load_file, save_file

from amatch_widgets.errors import WorkspaceError
from amatch_widgets.learn import checkpoint as checkpoint_module
from amatch_widgets.learn import chunks as chunks_module
from amatch_widgets.learn.checkpoint import load_checkpoint, save_checkpoint
from amatch_widgets.learn.details import read_details


@pytest.fixture
def trained(make_trainer, make_feed):
    trainer = make_trainer(frozen_stages=0)
    list(trainer.steps(3, make_feed(trainer.config)))
    return trainer


@pytest.fixture
def path(tmp_path, trained):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, trained, {"time": "now", "labels": {"n": 4}})
    return path


def state_of(trainer):
    states = {f"model.{n}": v for n, v in trainer.model.state_dict().items()}
    states |= {f"average.{n}": v for n, v in trainer.average.state_dict().items()}
    buffers = {n: trainer.optimiser.state[p] for n, p in trainer.model.named_parameters() if p.requires_grad}
    states |= {f"momentum.{n}": b["momentum_buffer"] for n, b in buffers.items() if b}
    return {name: value.clone() for name, value in states.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_weights_average_momentum_and_counts_come_back(path, trained, make_trainer):
    other = make_trainer(seed=9, frozen_stages=0)
    load_checkpoint(path, other)
    assert (other.step, other.cycle, other.end) == (3, 1, 3)
    assert_equal(state_of(trained), state_of(other))
    assert any(name.startswith("momentum.") for name in state_of(other))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freeze_norm": True, "frozen_stages": 0},
        {"freeze_norm": True, "frozen_stages": 2, "batch": 8, "unlabelled_ratio": 4, "threshold": 0.5001},
        {"frozen_stages": 2, "backbone": "test_efficientnet"},
        {"restart": True},
    ],
    ids=["mixed", "chunks", "chunks and frozen", "frozen", "restarted"],
)
def test_a_training_resumed_in_a_new_trainer_goes_on_to_the_bit(
    tmp_path, make_trainer, make_feed, options, monkeypatch
):
    monkeypatch.setattr(chunks_module, "_CHUNK_PIXELS", 5 * 32**2)  # several to a step
    whole = make_trainer(**options)
    list(whole.steps(2, make_feed(whole.config)))
    uninterrupted = list(whole.steps(6, make_feed(whole.config)))

    first = make_trainer(**options)
    list(first.steps(2, make_feed(first.config)))
    steps = first.steps(6, make_feed(first.config))
    for _ in range(3):
        next(steps)
    steps.close()
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, first, {})
    resumed = make_trainer(**options | {"seed": 0})
    load_checkpoint(path, resumed)
    assert (resumed.step, resumed.cycle, resumed.end) == (5, 2, 8)
    records = list(resumed.steps(3, make_feed(resumed.config)))
    assert [(r.step, r.cycle, r.loss, r.share_above) for r in records] == [
        (r.step, r.cycle, r.loss, r.share_above) for r in uninterrupted[3:]
    ]
    assert_equal(state_of(whole), state_of(resumed))
    assert resumed.end == resumed.step == 8  # the next one is a new cycle
    assert any(r.share_above for r in uninterrupted) == ("threshold" in options)


def numbered(path, trainer):
    """Make of a checkpoint one of format 1."""
    parameters = dict(trainer.model.named_parameters())
    order = [n for n, p in parameters.items() if p.ndim > 1] + [
        n for n, p in parameters.items() if p.ndim <= 1
    ]
    names = {f"momentum.{name}": f"momentum.{number}" for number, name in enumerate(order)}
    rewritten(
        path, details={"format": 1}, tensors=lambda old: {names.get(n, n): value for n, value in old.items()}
    )


def test_a_checkpoint_of_format_1_is_still_read(path, trained, make_trainer):
    numbered(path, trained)
    assert "momentum.46" in load_file(path)
    other = make_trainer(seed=9, frozen_stages=0)
    load_checkpoint(path, other)
    assert_equal(state_of(trained), state_of(other))


def test_a_number_of_format_1_that_does_not_exist_is_refused(path, trained, make_trainer):
    numbered(path, trained)
    rewritten(path, tensors=lambda old: old | {"momentum.9999": torch.zeros(1)})
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(path, make_trainer())


def test_momentum_of_what_is_frozen_since_then_is_left_aside(path, trained, make_trainer):
    other = make_trainer(frozen_stages=2)
    load_checkpoint(path, other)
    kept = {name for name in state_of(other) if name.startswith("momentum.")}
    assert kept == {
        f"momentum.network.{name}"
        for name, _ in other.model.network.named_parameters()
        if name.startswith(("layer3", "layer4", "fc"))
    }
    assert all(torch.equal(state_of(other)[name], state_of(trained)[name]) for name in kept)


def test_a_checkpoint_without_an_anchor_gets_one_when_the_next_cycle_begins(path, make_trainer, make_feed):
    def older(tensors):
        return {name: value for name, value in tensors.items() if not name.startswith("anchor.")}

    rewritten(path, details={"format": 2, "anchored": None}, tensors=older)
    other = make_trainer()
    load_checkpoint(path, other)
    assert other.anchor is None
    list(other.steps(1, make_feed(other.config)))
    assert other.anchor.cycle == 2


def test_a_checkpoint_that_does_not_say_where_its_cycle_ends_begins_a_new_one(path, make_trainer, make_feed):
    rewritten(path, details={"end": None, "begun": None})
    other = make_trainer()
    load_checkpoint(path, other)
    list(other.steps(1, make_feed(other.config)))
    assert (other.step, other.cycle, other.begun) == (4, 2, 0)


def test_a_checkpoint_before_the_first_step_comes_back(tmp_path, make_trainer):
    path = tmp_path / "none.safetensors"
    save_checkpoint(path, make_trainer(), {})
    other = make_trainer(seed=3)
    load_checkpoint(path, other)
    assert other.step == 0


def test_details_come_back_with_what_the_training_is(path):
    assert read_details(path) == {
        "time": "now",
        "labels": {"n": 4},
        "format": 3,
        "step": 3,
        "cycle": 1,
        "end": 3,
        "begun": 0,
        "backbone": "test_resnet",
        "channels": 3,
        "vectors": None,
        "anchored": 1,
    }


def test_nothing_is_pickled(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert "amatch" in json.loads(data[8 : 8 + size])["__metadata__"]
    with pytest.raises(Exception, match=r"opcode|pickle"):
        list(pickletools.genops(data))


def test_no_temporary_file_is_left(path):
    assert [p.name for p in path.parent.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, make_trainer, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    trainer = make_trainer()
    before = state_of(trainer)
    with pytest.raises(WorkspaceError, match=r"last\.safetensors' cannot be used.*the labels are safe"):
        load_checkpoint(path, trainer)
    assert trainer.step == 0
    assert_equal(before, state_of(trainer))


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 200, b"{}"])
def test_a_damaged_file_is_refused(path, make_trainer, content):
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(path, make_trainer())


def test_a_missing_file_is_refused(tmp_path, make_trainer):
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(tmp_path / "absent.safetensors", make_trainer())


def rewritten(path, *, details=None, tensors=None):
    """Write a checkpoint with other details, or other tensors."""
    found = read_details(path)
    metadata = {"amatch": json.dumps(found | (details or {}))}
    save_file(load_file(path) if tensors is None else tensors(load_file(path)), path, metadata=metadata)


def test_a_newer_format_is_refused(path, make_trainer):
    rewritten(path, details={"format": 4})
    with pytest.raises(WorkspaceError, match="its format is 4, this version reads 1 to 3"):
        load_checkpoint(path, make_trainer())


def test_another_backbone_is_refused(path, make_trainer):
    with pytest.raises(WorkspaceError, match="holds 'test_resnet' for 3 channels instead of 'test_vit'"):
        load_checkpoint(path, make_trainer(backbone="test_vit"))


def test_another_number_of_channels_is_refused(path, make_trainer):
    with pytest.raises(WorkspaceError, match="for 3 channels instead of 'test_resnet' for 5"):
        load_checkpoint(path, make_trainer(channels=5))


@pytest.mark.parametrize(
    "tensors",
    [
        lambda t: {n: v for n, v in t.items() if n != "model.network.fc.weight"},
        lambda t: t | {"model.network.fc.weight": torch.zeros(3, 7)},
        lambda t: t | {"surprise.0": torch.zeros(1)},
        lambda t: t | {"momentum.0": torch.zeros(1)},
        lambda t: t | {"momentum.network.fc.weight": torch.zeros(3, 1, 1, 7)},
        lambda t: t | {"momentum.network.fc.bias": torch.zeros(1)},  # would be repeated to fit
        lambda _: {},
    ],
)
def test_tensors_that_do_not_fit_are_refused(path, make_trainer, tensors):
    rewritten(path, tensors=tensors)
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(path, make_trainer())


def test_details_that_lack_something_are_refused(path, make_trainer):
    save_file(load_file(path), path, metadata={"amatch": '{"format": 1}'})
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(path, make_trainer())


def test_a_file_without_details_is_refused(path, make_trainer):
    save_file(load_file(path), path)
    with pytest.raises(WorkspaceError, match="cannot be used"):
        load_checkpoint(path, make_trainer())


def test_a_full_disk_is_an_error_and_leaves_the_older_file(path, trained, monkeypatch):
    before = path.read_bytes()

    def fill_up(tensors, filename, metadata):
        filename.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", fill_up)
    with pytest.raises(WorkspaceError, match=r"No space left on device\. It is still in memory"):
        save_checkpoint(path, trained, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.safetensors"]


def test_a_folder_that_is_gone_is_an_error(tmp_path, trained):
    with pytest.raises(WorkspaceError, match="cannot be saved"):
        save_checkpoint(tmp_path / "gone" / "last.safetensors", trained, {})
