"""Which GPU each worker takes; on simulated GPUs, with real locks between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from amatch_widgets.archive import devices
from amatch_widgets.archive.devices import Together, claim, devices_of, names_of_gpus

WAIT_S = 60


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_claimed", [])
    yield
    for descriptor in devices._claimed:
        os.close(descriptor)


@pytest.fixture
def gpus(monkeypatch):
    def see(n):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)

    return see


def test_workers_take_one_gpu_each_and_share_when_there_are_no_more(gpus):
    gpus(3)
    assert [claim("auto") for _ in range(7)] == [f"cuda:{i}" for i in (0, 1, 2, 0, 1, 2, 0)]


@pytest.mark.parametrize("n", [0, 1])
def test_where_there_are_not_several_nothing_is_chosen(gpus, n):
    gpus(n)
    assert [claim("auto"), claim("cuda")] == ["auto", "cuda"]
    assert devices_of("auto") == ["auto"]


def test_what_is_named_is_taken(gpus):
    gpus(3)
    assert [claim(name) for name in ("cpu", "cuda:1", "cuda:1")] == ["cpu", "cuda:1", "cuda:1"]
    assert devices_of("cuda:1") == ["cuda:1"]
    assert devices_of("auto") == ["cuda:0", "cuda:1", "cuda:2"]


def test_a_worker_that_sees_them_in_an_order_of_its_own_gets_its_first(gpus, monkeypatch):
    """As those of dask-cuda do."""
    gpus(3)
    for seen in ("0,1,2", "1,2,0", "2,0,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        assert claim("auto") == "cuda:0"


def test_names_are_those_of_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a, GPU-7b")
    assert names_of_gpus(2) == ["GPU-5a", "GPU-7b"]
    assert names_of_gpus(3) == ["0", "1", "2"]  # the driver saw another list


def test_the_gpu_of_a_worker_that_was_killed_is_free_again(gpus, tmp_path):
    gpus(2)
    code = """
import sys
from amatch_widgets.archive import devices
devices._n_gpus = lambda: 2
print(devices.claim("auto"), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as other:
        assert other.stdout.readline() == "cuda:0\n"
        assert claim("auto") == "cuda:1"
        other.kill()
        other.wait(WAIT_S)
    assert claim("auto") == "cuda:0"


def test_all_devices_score_at_once_and_each_for_one_thread():
    """Each waits until both are at work: one after the other would never end."""
    both = threading.Barrier(2)

    def on(device):
        def score(images):
            both.wait(WAIT_S)
            return np.full(len(images), device, np.float32)

        return score

    together, found = Together([on(0), on(1)]), []
    threads = [
        threading.Thread(target=lambda: found.append(together(np.zeros((1, 2, 2, 3), np.uint8))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(float(scores[0]) for scores in found) == [0, 0, 1, 1]


def test_a_device_that_fails_is_given_back():
    def fail(_):
        raise RuntimeError("out of memory")

    together = Together([fail])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            together(np.zeros((1, 2, 2, 3), np.uint8))
