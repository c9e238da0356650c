"""An archive on a real Dask cluster: scheduler and workers are processes of their own on loopback."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import numpy as np
import pyarrow.parquet as pq
import pytest

from amatch_widgets.archive.cluster import choose_precision, connect, score_on_cluster
from amatch_widgets.archive.first import keep_first
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.ranker import Model, Ranker
from amatch_widgets.archive.run import score_missing
from amatch_widgets.errors import ConfigError, ImageReadError, MissingExtraError, SourceError, StateError
from amatch_widgets.events import ScoringProgress
from amatch_widgets.images.npy import NpySource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.remote import Remote
from amatch_widgets.learn.backbone import build_classifier
from tests.archive.helper import rows
from tests.archive.processes import WAIT_S, Cluster

distributed = pytest.importorskip("distributed")

N, ROWS = 240, 10
IMAGE = Preprocess(size=32)


class Gone:
    """Images that cannot be read any more."""

    name, channels = "gone", 3

    def __init__(self, images):
        self.ids = [f"{i}" for i in range(len(images))]

    def __len__(self):
        return len(self.ids)

    def read(self, index, *, min_side=None):
        raise ImageReadError(self.ids[index], "the disk is gone")


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def ranker():
    model = Model.of(build_classifier("test_resnet", weights="random", seed=3), "test_resnet")
    return Ranker(ranked_by="deep", image=IMAGE, note="", deep=model, precision="float32")


@pytest.fixture
def source(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return NpySource(tmp_path / "images.npy")


def begin(folder, ranker):
    parts = Parts.create(folder, fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    return parts, parts.begin(ranker.key, "", ranker.precision)


@pytest.fixture
def wanted(tmp_path, ranker, source):
    """What this machine alone gives, row by row."""
    parts, cycle = begin(tmp_path / "local", ranker)
    list(score_missing(source, IMAGE, ranker.ready("cpu"), parts, cycle))
    return rows(parts, cycle)


def test_workers_are_killed_another_joins_and_the_scheduler_is_restarted(
    cluster, tmp_path, ranker, source, wanted
):
    scheduler = cluster.scheduler()
    workers = [cluster.worker() for _ in range(3)]
    parts, cycle = begin(tmp_path / "shared", ranker)
    with cluster.client() as client:
        client.wait_for_workers(3, timeout=WAIT_S)
        run = score_on_cluster(client, source, ranker, parts, cycle, device="cpu", batch_size=4)
        while next(run).done < 3 * ROWS:
            pass
        for worker in workers:  # all that have the model, too
            cluster.kill(worker)
        cluster.worker()
        while next(run).done < 10 * ROWS:
            pass
        cluster.kill(scheduler)
        with pytest.raises(StateError, match=r"The cluster was lost.*goes on from here"):
            list(run)
    done = len(parts.done(cycle))
    assert 10 <= done <= parts.n_parts

    cluster.close()
    cluster.file.unlink(missing_ok=True)
    cluster.scheduler()
    cluster.worker()
    with cluster.client() as client:
        client.wait_for_workers(1, timeout=WAIT_S)
        events = list(score_on_cluster(client, source, ranker, parts, cycle, device="cpu"))
        assert not events or events[-1].done == N
        assert not list(score_on_cluster(client, source, ranker, parts, cycle, device="cpu"))
    assert rows(parts, cycle) == wanted


def test_workers_write_to_an_object_store(cluster, object_store, ranker, source, wanted):
    import s3fs  # noqa: PLC0415 - takes a second

    s3fs.S3FileSystem(**object_store).mkdir("cluster")
    cluster.scheduler()
    cluster.worker()
    place = Remote("s3://cluster/scores", storage_options=object_store)
    parts, cycle = begin(place, ranker)
    with cluster.client() as client:
        client.wait_for_workers(1, timeout=WAIT_S)
        list(score_on_cluster(client, source, ranker, parts, cycle, device="cpu"))
    assert rows(Parts.open(place), cycle) == wanted


@pytest.fixture
def local():
    """A cluster within this process, for what needs no processes."""
    with ExitStack() as stack:
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
            )
        )
        yield stack.enter_context(distributed.Client(cluster))


def test_who_stops_early_goes_on_later(local, tmp_path, ranker, source, wanted):
    parts, cycle = begin(tmp_path / "shared", ranker)
    run = score_on_cluster(local, source, ranker, parts, cycle, device="cpu")
    while next(run).done < ROWS:
        pass
    run.close()
    events = list(score_on_cluster(local, source, ranker, parts, cycle, device="cpu"))
    assert events[-1].done == events[-1].total == N
    assert rows(parts, cycle) == wanted


def test_a_worker_chooses_the_precision(local, ranker, monkeypatch):
    asked = []
    monkeypatch.setattr(Ranker, "choose_precision", lambda _, device: asked.append(device) or "bfloat16")
    found = []

    def choose():
        found.append((yield from choose_precision(local, ranker, N, device="cpu")))

    assert all(event == ScoringProgress(0, N, 0.0, float("inf")) for event in choose())
    assert found == ["bfloat16"]
    assert asked == ["cpu"]


def test_the_highest_of_the_cycle_before_are_scored_first_there_too(
    local, tmp_path, ranker, source, monkeypatch
):
    monkeypatch.setattr("amatch_widgets.archive.first._LEAST", 40)
    parts, first = begin(tmp_path / "shared", ranker)
    list(score_on_cluster(local, source, ranker, parts, first, device="cpu"))
    wanted = sorted(rows(parts, first), key=lambda row: -row["score"])[:40]
    second, done = parts.begin("another", ""), []

    def keep(*scored):
        done.append(parts.done(second))
        keep_first(*scored)

    monkeypatch.setattr("amatch_widgets.archive.cluster.keep_first", keep)
    list(score_on_cluster(local, source, ranker, parts, second, device="cpu"))
    assert done == [[]]
    found = pq.read_table(parts.first(second), partitioning=None).to_pylist()
    assert found == sorted(wanted, key=lambda row: row["index"])
    assert rows(parts, second) == rows(parts, first)


def test_a_volume_that_is_gone_on_the_workers_is_told_and_nothing_is_written(local, tmp_path, ranker, source):
    parts, cycle = begin(tmp_path / "shared", ranker)

    with pytest.raises(SourceError, match=r"None of 30 images in a row.*the disk is gone"):
        list(
            score_on_cluster(local, Gone(np.load(source.spec()["path"])), ranker, parts, cycle, device="cpu")
        )
    assert parts.done(cycle) == []


def test_a_scheduler_that_no_longer_answers_is_told(local, tmp_path, ranker, source, monkeypatch):
    def refuse():
        raise OSError("Timed out trying to connect")

    parts, cycle = begin(tmp_path / "shared", ranker)
    run = score_on_cluster(local, source, ranker, parts, cycle, device="cpu")
    next(run)
    monkeypatch.setattr(local, "nthreads", refuse)
    with pytest.raises(StateError, match=r"The cluster was lost.*Timed out.*goes on from here"):
        list(run)


def test_what_is_no_client_is_refused(tmp_path, ranker, source, monkeypatch):
    parts, cycle = begin(tmp_path / "shared", ranker)
    with pytest.raises(ConfigError, match=r"allowed is a distributed\.Client"):
        list(score_on_cluster("tcp://127.0.0.1:8786", source, ranker, parts, cycle))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[cluster\]'"):
        list(score_on_cluster(None, source, ranker, parts, cycle))


def test_a_scheduler_that_is_not_there_is_told_with_what_to_do():
    with pytest.raises(StateError, match=r"no Dask scheduler at 'nowhere://x'.*dask scheduler"):
        connect("nowhere://x")
