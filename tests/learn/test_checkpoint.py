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
from amatch_widgets.learn.checkpoint import load_checkpoint, read_details, save_checkpoint


@pytest.fixture
def trained(make_trainer, make_feed):
    trainer = make_trainer()
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
    parameters = [p for group in trainer.optimiser.param_groups for p in group["params"]]
    buffers = [trainer.optimiser.state[p].get("momentum_buffer") for p in parameters]
    states |= {f"momentum.{i}": v for i, v in enumerate(buffers) if v is not None}
    return {name: value.clone() for name, value in states.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_weights_average_momentum_and_counts_come_back(path, trained, make_trainer):
    other = make_trainer(seed=9)
    load_checkpoint(path, other)
    assert (other.step, other.cycle) == (3, 1)
    assert_equal(state_of(trained), state_of(other))
    assert any(name.startswith("momentum.") for name in state_of(other))


def test_a_resumed_training_goes_on_to_the_bit(tmp_path, make_trainer, make_feed):
    whole = make_trainer()
    feed = make_feed(whole.config)
    list(whole.steps(2, feed))
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, whole, {})
    uninterrupted = list(whole.steps(3, feed))

    resumed = make_trainer()
    load_checkpoint(path, resumed)
    records = list(resumed.steps(3, make_feed(resumed.config)))
    assert [(r.step, r.cycle, r.loss) for r in records] == [(r.step, r.cycle, r.loss) for r in uninterrupted]
    assert_equal(state_of(whole), state_of(resumed))


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
        "format": 1,
        "step": 3,
        "cycle": 1,
        "backbone": "test_resnet",
        "channels": 3,
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
    rewritten(path, details={"format": 2})
    with pytest.raises(WorkspaceError, match="its format is 2, this version reads 1"):
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
        lambda t: t | {"momentum.9999": torch.zeros(1)},
        lambda t: t | {"momentum.0": torch.zeros(3, 1, 1, 7)},
        lambda t: t | {"momentum.x": torch.zeros(1)},
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
