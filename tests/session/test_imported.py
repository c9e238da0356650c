"""A model of AnomalyMatch 2 gives archives its scores, from images prepared as they were there."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from amatch_widgets.errors import NotTrainedError, SourceError
from amatch_widgets.events import Message
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.fitsbolt import FitsboltInput
from amatch_widgets.images.pair import Pair
from amatch_widgets.images.preprocess import Preprocess
from tests.score.anomalymatch import config, write_model
from tests.session.helper import SKY, WAIT_S, cycle, holey, judged_better


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Compute in float32, whatever this machine does faster."""
    monkeypatch.setattr("amatch_widgets.learn.inference.has_bfloat16", lambda _: False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_iteration_2.safetensors"


def taken(session, path):
    session.import_model(path)
    session.wait(WAIT_S)
    return session


def scored(session, archive):
    """The scores of an archive in the order of its images, and the archive."""
    session.score(archive)
    session.wait(WAIT_S)
    (found,) = session.archives.values()
    table = found.scores.top(10_000).sort_values("index")
    return table["score"].to_numpy(), found


def test_an_archive_gets_the_scores_that_the_network_gives(session, path):
    network = write_model(path)
    values, archive = scored(taken(session, path), SKY)
    images = np.stack([SKY.read(i) for i in range(60)])
    with torch.inference_mode():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(values, logits.softmax(1)[:, 1].numpy(), atol=1e-4)
    assert archive.scores.cycle.note.startswith(
        "Ranked by the model behind 'model_iteration_2.safetensors' (AnomalyMatch 2). Its file: SHA-256 "
    )


@pytest.mark.parametrize("method", ["ASINH", "LOG", "ZSCALE"])
def test_images_are_prepared_as_the_model_knows_them(make_session, path, method):
    write_model(path, fitsbolt_cfg=config(method=method, size=[48, 48]))
    pixels = np.random.default_rng(1).gamma(0.5, 100, (40, 40, 40, 3)).astype(np.float32)
    session = make_session(ArraySource(pixels), labels=None)
    own = taken(session, path).scores
    assert np.ptp(np.log(own)) > 1  # a network of chance may be sure of itself
    values, archive = scored(session, ArraySource(pixels[::-1].copy()))
    np.testing.assert_allclose(values, own[::-1], rtol=1e-3)
    image = archive.scores.cycle.details["image"]
    assert (image["by"], image["method"], image["size"]) == ("fitsbolt", method, 48)


def test_where_both_rank_each_sees_images_in_its_own_way(session, path, monkeypatch):
    judged_better(monkeypatch)
    write_model(path, fitsbolt_cfg=config(method="ASINH", size=[48, 48]))
    session.embed()
    session.wait(WAIT_S)
    taken(session, path)
    session.label({session.query(1)[0].image_id: "normal"})
    session.query(1)
    assert session.ranked_by == "both"
    values, archive = scored(session, SKY)
    assert spearmanr(values, session.scores).statistic > 0.99
    cycle = archive.scores.cycle
    assert "takes part" in cycle.note
    assert cycle.details["image"]["second"]["method"] == "ASINH"
    assert cycle.details["image"]["first"] == session.image.to_dict()


def test_reopened_the_session_has_it_and_exports_say_which_it_was(session, path, make_session, tmp_path):
    write_model(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    first, _ = scored(taken(session, path), SKY)
    session.close()
    path.unlink()
    session = make_session(labels=None)
    values, archive = scored(session, SKY)
    np.testing.assert_array_equal(values, first)
    assert [c.number for c in archive.parts.cycles()] == [1]  # it was the same model
    record = json.loads((archive.folder / "cycle=0001" / "model.json").read_text())
    assert record["details"]["imported"] == (
        f"'model_iteration_2.safetensors' (AnomalyMatch 2), sha256 {sha256}"
    )
    session.export(tmp_path / "best.parquet", 5, archive=archive.name)
    session.export(tmp_path / "own.parquet", 5)
    import pyarrow.parquet as pq  # noqa: PLC0415 (used here alone)

    best, own = (pq.read_schema(tmp_path / f"{name}.parquet").metadata for name in ("best", "own"))
    said = b" ".join(best.values()).decode()
    assert "model_iteration_2.safetensors" in said
    assert sha256[:16] in said
    assert archive.scores.cycle.key in said
    assert session._provenance().model in b" ".join(own.values()).decode()
    assert len(session._provenance().model) == 32


def test_after_a_training_the_sessions_own_model_scores(session, path, monkeypatch):
    write_model(path)
    _, archive = scored(taken(session, path), SKY)
    cycle(session)
    monkeypatch.setattr(type(session._board), "ranked_by", "deep")
    values, archive = scored(session, SKY)
    np.testing.assert_allclose(values, session._board.deep[1], atol=0.02)
    assert archive.scores.cycle.details["imported"] == ""


def test_images_that_it_cannot_see_are_listed(session, path):
    write_model(path)
    told = []
    session.hub.subscribe(lambda event: told.append(event.text) if isinstance(event, Message) else None)
    values, archive = scored(taken(session, path), holey({3, 9}))
    assert (len(values), archive.scores.n_problems) == (58, 2)
    assert "2 of 60 images" in told[-1]


def test_imported_scores_take_the_models_place_and_score_nothing(session, path, tmp_path):
    write_model(path)
    taken(session, path)
    table = tmp_path / "scores.csv"
    table.write_text("id,score\n" + "".join(f"{i},0.{k:02d}\n" for k, i in enumerate(SKY.ids)))
    session.import_scores(table)
    with pytest.raises(NotTrainedError, match="only its scores are here"):
        session.score(SKY)
    taken(session, path)
    values, _ = scored(session, SKY)
    assert len(values) == 60


def test_a_model_that_is_gone_or_damaged_is_told_and_nothing_is_scored(session, path):
    write_model(path)
    taken(session, path)
    kept = session.path / "imported.safetensors"
    whole = kept.read_bytes()
    for damaged in (whole[:1000], b"", whole.replace(b'\\"size\\": 32', b'\\"side\\": 32')):
        kept.write_bytes(damaged)
        with pytest.raises(NotTrainedError, match=r"only its scores are here.*cannot be used"):
            session.score(SKY)
    kept.unlink()
    with pytest.raises(NotTrainedError, match="only its scores are here"):
        session.score(SKY)
    assert session.archives == {}
    kept.write_bytes(whole)
    assert len(scored(session, SKY)[0]) == 60


def test_other_channels_are_refused_before_anything_is_done(session, path, monkeypatch):
    write_model(path)
    taken(session, path)
    with pytest.raises(SourceError, match="have 5 channels"):
        session.score(ArraySource(np.zeros((4, 32, 32, 5), np.uint8)))
    monkeypatch.setattr(Preprocess, "check", lambda *_: None)
    with pytest.raises(SourceError, match=r"have 5 channels, and the model behind .* has learnt from 3"):
        session.score(ArraySource(np.zeros((4, 32, 32, 5), np.uint8)))


def test_a_pair_makes_what_both_make():
    first = Preprocess(size=24)
    second = FitsboltInput.from_dict(
        json.loads(json.dumps(FitsboltInput(size=32, channels=3, method="LOG").to_dict()))
    )
    assert second == FitsboltInput(size=32, channels=3, method="LOG")
    pair = Pair(first, second)
    images = [SKY.read(i) for i in range(3)]
    made = np.stack([pair(image) for image in images])
    assert made.shape == (3, *pair.shape)
    for found, prepare in zip(pair.split(made), (first, second), strict=True):
        np.testing.assert_array_equal(found, np.stack([prepare(image) for image in images]))
    with pytest.raises(ValueError, match="channels"):
        pair(np.zeros((8, 8, 5), np.uint8))
