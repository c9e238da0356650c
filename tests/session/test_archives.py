"""Images that are not the session's own get the scores that they would have in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from amatch_widgets.archive.ranker import Ranker
from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, NotTrainedError, SourceError, WorkspaceError
from amatch_widgets.events import Message, ScoringProgress
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.source import open_source
from tests.session.helper import SKY, WAIT_S, cycle, holey, judged_better


def embedded(session):
    session.embed()
    session.wait(WAIT_S)
    return session


def name_of(archive):
    return f"{archive.name}-{archive.fingerprint()[:8]}"


def scored(session, archive, **options):
    """The scores of an archive in the order of its images."""
    session.score(archive, **options)
    session.wait(WAIT_S)
    (scores,) = session.archive_scores.values()
    table = scores.top(10_000).sort_values("index")
    return table["score"].to_numpy(), scores


def test_by_the_instant_tier_the_same_images_get_the_same_scores(make_session):
    session = embedded(make_session(test_share=0))
    assert session.ranked_by == "instant"
    values, scores = scored(session, SKY)
    # The embeddings are kept in float16, and what is scored now is not.
    np.testing.assert_allclose(values, session.scores, atol=0.02)
    assert scores.top(3)["id"].tolist() == [SKY.ids[i] for i in session.ranking()[:3]]
    assert (len(values), scores.n_problems) == (len(SKY), 0)


def test_by_the_trained_model_alone_too(make_session, monkeypatch):
    session = make_session(test_share=0)
    cycle(session)
    monkeypatch.setattr(type(session._board), "ranked_by", "deep")
    values, _ = scored(session, SKY)
    np.testing.assert_allclose(values, session._board.deep[1], atol=0.02)


def test_where_both_rank_the_order_is_that_of_the_blend(make_session, monkeypatch):
    judged_better(monkeypatch)
    session = make_session(test_share=0)
    cycle(session)
    assert session.ranked_by == "both"
    values, _ = scored(session, SKY)
    assert spearmanr(values, session.scores).statistic > 0.97
    np.testing.assert_allclose(np.sort(values), np.sort(session.scores), atol=0.06)


def test_a_second_run_makes_only_what_is_missing_and_new_labels_begin_another_cycle(make_session):
    session, events = embedded(make_session(test_share=0)), []
    archive = sky(80, size=32, seed=5)
    first, scores = scored(session, archive)
    session.hub.subscribe(events.append)
    again, _ = scored(session, archive)
    np.testing.assert_array_equal(first, again)
    assert not [e for e in events if isinstance(e, ScoringProgress)]
    rare = next(i for i, label in SKY.truth.items() if label == "anomaly" and session.labels.get(i) is None)
    session.label({rare: "anomaly"})
    assert session._tiers.wait(WAIT_S)
    other, newer = scored(session, archive)
    assert (scores.cycle.number, newer.cycle.number) == (1, 2)
    assert not np.array_equal(first, other)
    risen = newer.rising(80)
    assert sorted(risen["rank_before"]) == list(range(1, 81))
    np.testing.assert_array_equal(scores.top(80).sort_values("index")["score"], first)  # kept


def test_the_ranking_of_the_session_stays_as_it_is(make_session):
    session = embedded(make_session(test_share=0))
    before, ranked_by = session.scores.copy(), session.ranked_by
    scored(session, sky(30, size=32, seed=9))
    np.testing.assert_array_equal(session.scores, before)
    assert (session.ranked_by, session.problems) == (ranked_by, {})


def test_images_that_cannot_be_read_are_told_and_listed(make_session):
    session, events = embedded(make_session(test_share=0)), []
    session.hub.subscribe(events.append)
    archive = holey({3, 4})
    values, scores = scored(session, archive)
    assert len(values) == 58
    assert scores.problems()["problem"].tolist() == ["it has a hole"] * 2
    assert "2 of 60 images" in next(e.text for e in events if isinstance(e, Message))


def test_a_folder_of_the_users_choice(make_session, tmp_path):
    session = embedded(make_session(test_share=0))
    session.score(sky(30, size=32, seed=9), path=tmp_path / "elsewhere")
    session.wait(WAIT_S)
    assert list(session.archive_scores) == list(session.archives) == [name_of(sky(30, size=32, seed=9))]
    session.score(sky(31, size=32, seed=9), path=tmp_path / "elsewhere")
    with pytest.raises(WorkspaceError, match="other images"):
        session.wait(WAIT_S)
    assert len(session.archives) == 1


def test_a_folder_of_the_users_choice_is_found_again_and_gone_on_with(make_session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = embedded(make_session(test_share=0))
    archive = sky(30, size=32, seed=9)
    session.score(archive, path="elsewhere")
    session.wait(WAIT_S)
    session.close()
    monkeypatch.chdir("/")
    session = make_session(labels=None, test_share=0)
    (scores,) = session.archive_scores.values()
    assert (len(scores.top(100)), session.notices) == (30, ())
    session.score(archive)  # where it is already
    session.wait(WAIT_S)
    assert session.archives[name_of(archive)].folder == tmp_path / "elsewhere"
    assert not (session.path / "archives" / name_of(archive)).exists()


def test_a_folder_that_is_gone_is_told_and_remembered(make_session, tmp_path):
    session = embedded(make_session(test_share=0))
    archive, other = sky(30, size=32, seed=9), sky(20, size=32, seed=3)
    session.score(archive, path=tmp_path / "elsewhere")
    session.wait(WAIT_S)
    session.close()
    (tmp_path / "elsewhere").rename(tmp_path / "away")
    session = make_session(labels=None, test_share=0)
    assert not session.archives
    assert "elsewhere" in session.notices[0]
    session.score(other, path=tmp_path / "other")
    session.wait(WAIT_S)
    session.close()
    (tmp_path / "away").rename(tmp_path / "elsewhere")
    session = make_session(labels=None, test_share=0)
    assert set(session.archives) == {name_of(archive), name_of(other)}


def test_an_object_store_keeps_scores_and_credentials_are_not_written_down(make_session, object_store):
    import s3fs  # noqa: PLC0415 - takes a second

    s3fs.S3FileSystem(**object_store).mkdir("survey")
    url, archive = "s3://survey/scores", sky(30, size=32, seed=9)
    session = embedded(make_session(test_share=0))
    values, scores = scored(session, archive, path=url, storage_options=object_store)
    assert (len(values), scores.is_complete, str(session.archive(archive.name).folder)) == (30, True, url)
    session.score(archive)  # where its scores are already
    session.wait(WAIT_S)
    (name,) = session.archives
    assert session.archives[name].progress().n_done == 30
    session.close()
    kept = (session.path / "archives" / "elsewhere.json").read_text()
    assert url in kept
    assert object_store["secret"] not in kept

    again = make_session(test_share=0)
    assert (again.archives, again.notices[-1].count("secret")) == ({}, 1)
    embedded(again)
    values_again, _ = scored(again, archive, path=url, storage_options=object_store)
    np.testing.assert_array_equal(values_again, values)
    assert list(again.archives) == [name]


def test_options_for_a_path_that_is_no_url_are_refused(make_session, tmp_path):
    session = embedded(make_session(test_share=0))
    with pytest.raises(ConfigError, match=r"storage_options are for a URL.*am.open_source"):
        session.score(SKY, path=tmp_path / "x", storage_options={"anon": True})


def test_a_relative_path_stays_where_it_was_when_the_working_directory_changes(
    make_session, tmp_path, monkeypatch
):
    session = embedded(make_session(test_share=0))
    monkeypatch.chdir(tmp_path)
    session.score(sky(30, size=32, seed=9), path="here")
    monkeypatch.chdir("/")
    session.wait(WAIT_S)
    assert (tmp_path / "here" / "archive.json").exists()


def test_no_archive_has_a_name_that_an_id_of_the_session_begins_with(make_session, tmp_path):
    images = np.stack([SKY.read(i) for i in range(40)])
    archive = sky(30, size=32, seed=9)
    ids = [f"{name_of(archive)}::{i}" if i > 20 else f"mine::{i}" for i in range(40)]
    source = open_source(images, ids=ids)
    labels = {ids[0]: "anomaly", ids[1]: "normal"}
    session = embedded(make_session(source, labels=labels, test_share=0))
    session.score(archive)
    session.wait(WAIT_S)
    session.score(sky(20, size=32, seed=3), path=session.path / "archives" / "mine")
    session.wait(WAIT_S)
    names = list(session.archives)
    assert len(names) == 2
    assert not [i for i in ids if i.startswith(tuple(f"{name}::" for name in names))]
    session.close()
    assert set(make_session(source, labels=None, test_share=0).archives) == set(names)


def test_what_cannot_be_scored_is_refused_before_anything_is_done(make_session):
    session = make_session(labels=None)
    with pytest.raises(NotTrainedError, match="Label an anomaly"):
        session.score(SKY)
    embedded(session)
    assert session.ranked_by == "novelty"
    with pytest.raises(NotTrainedError, match="Label an anomaly"):
        session.score(SKY)
    with pytest.raises(SourceError, match="Cannot take images"):
        session.score(3)


def test_other_bands_are_refused(make_session):
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 5), dtype=np.uint8)
    labels = {"00": "anomaly", "01": "normal"}
    session = embedded(make_session(images, labels=labels, image=Preprocess(size=32), test_share=0))
    with pytest.raises(SourceError, match="have 3 channels, and the model has learnt from 5"):
        session.score(SKY)


def test_the_same_bands_in_another_order_are_refused(make_session):
    def images(*bands):
        source = open_source(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 2), dtype=np.uint8))
        source.bands = bands
        return source

    labels = {"00": "anomaly", "01": "normal"}
    session = embedded(
        make_session(images("VIS", "Y"), labels=labels, image=Preprocess(size=32), test_share=0)
    )
    assert session.image.bands == ("VIS", "Y")
    with pytest.raises(SourceError, match="bands Y, VIS, and the model has learnt from VIS, Y"):
        session.score(images("Y", "VIS"))


def test_a_stop_keeps_what_is_there_and_the_session_goes_on(make_session, monkeypatch):
    monkeypatch.setattr("amatch_widgets.session.scoring.part_rows_for", lambda *_: 10)
    session = embedded(make_session(test_share=0))
    archive = sky(60, size=32, seed=5)
    stopped = []

    def stop(event):
        if isinstance(event, ScoringProgress) and not stopped:
            stopped.append(event)
            session.stop()

    session.hub.subscribe(stop)
    session.score(archive)
    session.wait(WAIT_S)
    values, scores = scored(session, archive)
    assert (len(values), scores.is_complete) == (60, True)


def test_a_run_that_goes_on_keeps_the_precision_that_it_began_with(make_session, monkeypatch):
    monkeypatch.setattr("amatch_widgets.session.scoring.part_rows_for", lambda *_: 10)
    ready, used = Ranker.ready, []
    monkeypatch.setattr(
        Ranker, "ready", lambda self, device: used.append(self.precision) or ready(self, device)
    )
    monkeypatch.setattr(Ranker, "choose_precision", lambda *_: "bfloat16")
    session = embedded(make_session(test_share=0))
    archive = sky(60, size=32, seed=5)
    end = session.hub.subscribe(lambda event: session.stop() if isinstance(event, ScoringProgress) else None)
    session.score(archive)
    session.wait(WAIT_S)
    end()
    monkeypatch.setattr(Ranker, "choose_precision", lambda *_: "float32")  # another process, another clock
    values, scores = scored(session, archive)
    assert (len(values), scores.is_complete, scores.cycle.number) == (60, True, 1)
    assert (scores.cycle.precision, used) == ("bfloat16", ["bfloat16"] * 2)
