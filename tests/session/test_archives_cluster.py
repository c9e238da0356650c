"""A whole archive through a session, on a real Dask cluster that loses workers and its scheduler."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.ranker import Ranker
from amatch_widgets.errors import StateError
from amatch_widgets.events import ScoringProgress
from tests.archive.helper import rows
from tests.archive.processes import WAIT_S, Cluster
from tests.score.anomalymatch import config, write_model
from tests.session.helper import SKY, judged_better

zarr = pytest.importorskip("zarr")

N, ROWS, FIRST = 3_000, 100, 200


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def archive(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    images[::3] //= 4
    array = zarr.create_array(tmp_path / "a.zarr", shape=images.shape, chunks=(50, 16, 16, 3), dtype="uint8")
    array[:] = images
    return tmp_path / "a.zarr"


@pytest.fixture
def session(make_session, monkeypatch):
    monkeypatch.setattr("amatch_widgets.session.scoring.part_rows_for", lambda *_: ROWS)
    monkeypatch.setattr("amatch_widgets.archive.first._LEAST", FIRST)
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    return session


def score(session, archive, folder, *, client=None, after=None, do=None):
    """Score; do something once when so many images are done."""
    waiting = [do] if do else []

    def listen(event):
        if isinstance(event, ScoringProgress) and waiting and event.done >= after:
            waiting.pop()()

    end = session.hub.subscribe(listen)
    try:
        session.score(archive, path=folder, client=client)
        session.wait(5 * WAIT_S)
    finally:
        end()
    assert not waiting


def label_one_more(session):
    rare = next(i for i, label in SKY.truth.items() if label == "anomaly" and session.labels.get(i) is None)
    session.label({rare: "anomaly"})
    assert session._tiers.wait(WAIT_S)


def test_a_worker_and_the_scheduler_are_killed_and_the_rows_are_those_of_this_machine(
    cluster, session, archive, tmp_path, monkeypatch
):
    shared, local = tmp_path / "shared", tmp_path / "local"
    scheduler, *workers = cluster.scheduler(), *(cluster.worker() for _ in range(3))
    with cluster.client() as client:
        client.wait_for_workers(3, timeout=WAIT_S)
        score(session, archive, shared, client=client, after=500, do=lambda: cluster.kill(workers[0]))
        parts = Parts.open(shared)
        (first,) = parts.cycles()
        assert parts.missing(first) == []

        # What was chosen on the cluster, so that the clock of this process plays no part.
        monkeypatch.setattr(Ranker, "choose_precision", lambda *_: parts.cycles()[-1].precision)
        score(session, archive, local)
        label_one_more(session)
        with pytest.raises(StateError, match=r"The cluster was lost.*goes on from here"):
            score(session, archive, shared, client=client, after=1_000, do=lambda: cluster.kill(scheduler))
    second = parts.cycles()[1]
    assert parts.first(second)
    assert 5 <= len(parts.done(second)) < parts.n_parts

    cluster.close()
    cluster.file.unlink(missing_ok=True)
    cluster.scheduler()
    cluster.worker()
    with cluster.client() as client:
        score(session, archive, shared, client=client)
    score(session, archive, local)
    here = Parts.open(local)
    for cycle, other in zip(parts.cycles(), here.cycles(), strict=True):
        assert (cycle.key, cycle.precision) == (other.key, other.precision)
        found = rows(parts, cycle)
        assert [row["index"] for row in found] == list(range(N))
        assert found == rows(here, other)


def test_an_imported_model_scores_on_a_cluster_beside_the_labels(cluster, session, tmp_path, monkeypatch):
    judged_better(monkeypatch)
    few = tmp_path / "few.npy"
    np.save(few, np.random.default_rng(0).integers(0, 256, (250, 16, 16, 3), dtype=np.uint8))
    write_model(tmp_path / "model.safetensors", fitsbolt_cfg=config(method="ASINH"))
    session.import_model(tmp_path / "model.safetensors")
    session.wait(WAIT_S)
    label_one_more(session)
    assert session.ranked_by == "both"
    cluster.scheduler()
    cluster.worker()
    with cluster.client() as client:
        score(session, few, tmp_path / "shared", client=client)
    parts = Parts.open(tmp_path / "shared")
    (cycle,) = parts.cycles()
    monkeypatch.setattr(Ranker, "choose_precision", lambda *_: cycle.precision)
    score(session, few, tmp_path / "local")
    here = Parts.open(tmp_path / "local")
    (same,) = here.cycles()
    assert (cycle.key, cycle.details) == (same.key, same.details)
    assert cycle.details["imported"].startswith("'model.safetensors' (AnomalyMatch 2), sha256 ")
    assert rows(parts, cycle) == rows(here, same)
