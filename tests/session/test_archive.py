"""The images of an archive: looked at in any order, labelled beside the session's own, and exported."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, ImageReadError, LabelError, NotTrainedError
from amatch_widgets.images.source import open_source
from amatch_widgets.session import Filter
from amatch_widgets.widgets.closeup import nearest_labelled
from tests.session.helper import WAIT_S, Holey

SURVEY = sky(80, size=32, seed=5, prevalence=0.2)


def of(session, archive=SURVEY):
    session.score(archive)
    session.wait(WAIT_S)
    (found,) = session.archives.values()
    return found


def listed(archive, *args, n=500, **options):
    """The rows of an order, remembered as those of a page are."""
    rows = archive.order(*args, **options).rows(0, n)
    archive.remember(rows)
    return rows


def ids(archive, *args, **options):
    return [archive.id_of(row.id) for row in listed(archive, *args, **options)]


@pytest.fixture
def session(make_session):
    session = make_session()
    session.embed()
    session.wait(WAIT_S)
    return session


@pytest.fixture
def survey(session):
    return of(session)


def test_it_has_a_name_a_title_and_all_images_in_order(survey):
    assert (survey.title, len(survey)) == ("sky-5", 80)
    assert survey.name == f"sky-5-{SURVEY.fingerprint()[:8]}"
    rows = listed(survey)
    assert rows == survey.order("highest").rows(0, 80)
    values = [row.score for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(SURVEY.ids[row.index] == row.id for row in rows)
    assert [row.score for row in listed(survey, "lowest")] == values[::-1]
    assert sorted(row.index for row in listed(survey, "random", seed=3)) == list(range(80))
    with pytest.raises(ConfigError, match="order 'second look' of an archive"):
        survey.order("second look")


def test_its_images_are_labelled_by_their_names_in_the_session(session, survey):
    first, second, third = ids(survey)[:3]
    session.label({first: "anomaly", second: "normal"}, reason="highest")
    session.annotate(third, star=True, add=["ring"], note="odd")
    line = session.labels.get(first)
    assert (line.label, line.split, line.reason, line.step) == ("anomaly", "train", "highest", None)
    assert line.score == pytest.approx(listed(survey)[0].score)
    assert [ids(survey, show=s) for s in ("labelled", "anomaly", "normal", "starred")] == [
        [first, second],
        [first],
        [second],
        [third],
    ]
    assert ids(survey, "recent") == [second, first]
    assert ids(survey, only=Filter(tag="ring")) == [third]
    assert ids(survey, show="unlabelled")[0] == third
    assert len(survey.order(show="unlabelled")) == 78
    assert session.undo() == (third,)
    assert session.undo() == (first, second)
    assert not ids(survey, show="labelled")
    assert session.redo() == (first, second)


def test_what_is_counted_of_the_session_are_its_own_images(session, survey):
    before = (session.discovery, session.remaining, session.metrics, repr(session), session.labels.counts())
    many = ids(survey)[:30]
    session.label({i: ("anomaly", "normal")[k % 2] for k, i in enumerate(many)})
    after = (session.discovery, session.remaining, session.metrics, repr(session))
    assert repr(after) == repr(before[:-1])
    assert sum(session.labels.counts().values()) == sum(before[-1].values()) + 30
    assert {line.split for i, line in session.labels.current().items() if i in many} == {"train"}
    assert session.query(20, strategy="mixed")
    assert len(session.ranking(show="labelled")) == 12
    assert session.suspicious(99)


def test_the_held_out_share_of_the_sessions_own_labels_is_the_same_with_and_without(make_session, tmp_path):
    def splits(path, with_archive):
        session = make_session(path=tmp_path / path, labels=None)
        session.labels.set({"00": "anomaly", "01": "normal"})
        if with_archive:
            session.embed()
            session.wait(WAIT_S)
            survey = of(session)
            session.label(dict.fromkeys(ids(survey)[:9], "normal"))
        session.label({f"{i:02d}": "normal" for i in range(2, 40)})
        found = {i: line.split for i, line in session.own_labels.current().items()}
        session.close()
        with make_session(path=tmp_path / path, labels=None) as again:
            assert found == {i: line.split for i, line in again.own_labels.current().items()}
        return found

    assert splits("a", with_archive=True) == splits("b", with_archive=False)


def test_after_reopening_all_of_it_is_there(make_session, session, survey):
    first, second = ids(survey)[:2]
    session.label({first: "anomaly", second: "normal"})
    session.close()
    session = make_session(labels=None)
    (survey,) = session.archives.values()
    assert (first in session.pictures, f"{survey.name}::nothing" in session.pictures) == (True, False)
    assert ids(survey, show="labelled") == [first, second]
    assert session.thumbnail(first)
    assert session.undo() == (first, second)
    session.label({second: "anomaly"})
    lines = (session.path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines[-3:]] == [first, second, second]


def test_ids_of_no_image_are_refused_and_nothing_is_kept(session, survey):
    first = ids(survey)[0]
    n = session.labels.version
    for wrong in (f"{survey.name}::999", "other-archive::00", f"{survey.name}::", survey.name):
        with pytest.raises(LabelError, match="Unknown image id"):
            session.label({first: "anomaly", wrong: "normal"})
    assert session.labels.version == n
    with pytest.raises(LabelError, match="Unknown image id"):
        session.twins([first, "other-archive::00"])
    with pytest.raises(LabelError, match="is an image of an archive"):
        session.similar("00", among=[first])


def test_the_same_image_in_an_archive_is_explained_and_held_against_the_sessions_own(session):
    copy = of(session, sky(60, size=32, prevalence=0.2))  # the session's images once more
    first = copy.id_of("07")
    assert session.explain(first).image_id == first
    np.testing.assert_array_equal(session.explain(first).losses, session.explain("07").losses)
    best, *others = session.similar(first, 5)
    assert (best.image_id, best.reason) == ("07", "similar: cosine 1.00")
    assert [c.image_id for c in others] == [c.image_id for c in session.similar("07", 4)]
    together = [c.image_id for c in session.similar(["03", first], 5)]
    assert together == ["07", *(c.image_id for c in session.similar(["03", "07"], 4))]
    near, note = nearest_labelled(session, first, 3)
    assert (len(near), note) == (3, "")


def test_what_cannot_be_read_of_an_archive_is_neither_explained_nor_compared(session):
    source = Holey(60, size=32, prevalence=0.2)
    source.bad = frozenset({3})
    survey = of(session, source)
    for ask in (session.explain, session.similar):
        with pytest.raises(ImageReadError, match="it has a hole"):
            ask(survey.id_of("03"))


def test_an_image_that_was_on_no_page_is_found_in_the_files(session, survey):
    session.label({survey.id_of("17"): "anomaly"})
    assert survey.index(survey.id_of("17")) == 17
    with pytest.raises(LabelError, match=r"no image 'sky-5.*::nothing' among those of 'sky-5'"):
        survey.index(survey.id_of("nothing"))


def test_pictures_are_those_of_the_archive(session, survey):
    other = survey.id_of("07")
    np.testing.assert_array_equal(session.pictures.pixels(other), SURVEY.read(7))
    assert session.thumbnail(other) != session.thumbnail("07")
    assert session.cutout(other).startswith(b"\x89PNG")
    score, rank = session.standing(ids(survey)[0])
    assert (score, rank) == (listed(survey)[0].score, None)


def test_images_that_cannot_be_read_are_listed_with_the_reason(session):
    source = Holey(60, size=32, prevalence=0.2)
    source.bad = frozenset({3, 4})
    survey = of(session, source)
    assert [(row.id, row.problem) for row in listed(survey, show="problem")] == [
        ("03", "it has a hole"),
        ("04", "it has a hole"),
    ]
    with pytest.raises(ImageReadError, match="it has a hole"):
        session.thumbnail(survey.id_of("03"))


def test_an_array_has_to_be_given_again_to_be_seen(make_session, session):
    images = np.stack([SURVEY.read(i) for i in range(30)])
    survey = of(session, images)
    first = ids(survey)[0]
    session.label({first: "anomaly"})
    session.close()
    session = make_session(labels=None)
    with pytest.raises(ImageReadError, match=r"were an array in memory.*session.score"):
        session.thumbnail(first)
    (survey,) = session.archives.values()
    assert ids(survey, show="labelled") == [first]
    session.score(images)
    session.wait(WAIT_S)
    assert session.thumbnail(first)


def test_other_images_in_the_same_place_are_not_taken_for_them(make_session, session, tmp_path):
    images = np.stack([SURVEY.read(i) for i in range(30)])
    np.save(tmp_path / "survey.npy", images)
    survey = of(session, open_source(tmp_path / "survey.npy"))
    first = ids(survey)[0]
    session.close()
    np.save(tmp_path / "survey.npy", images[:20])
    session = make_session(labels=None)
    with pytest.raises(ImageReadError, match="has other images now"):
        session.thumbnail(first)


def test_what_has_risen_since_the_cycle_before_comes_first(session, survey):
    with pytest.raises(NotTrainedError, match="no earlier cycle"):
        survey.order("rising")
    rare, own = ([i for i, t in s.truth.items() if t == "anomaly"] for s in (SURVEY, session.source))
    session.label({survey.id_of(rare[0]): "anomaly"})
    session.label({next(i for i in own if i not in session.labels): "anomaly"})
    assert session._tiers.wait(WAIT_S)
    survey = of(session)
    rows = listed(survey, "rising")
    ranks = survey.scores.rising(80).set_index("id")
    gains = [np.log(ranks.rank_before[row.id] / ranks["rank"][row.id]) for row in rows]
    assert len(rows) == 80
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0
    few = listed(survey, "rising", only=Filter(contains="1"), show="unlabelled")
    assert {row.id for row in few} == {i for i in SURVEY.ids if "1" in i} - {
        survey.own_id(i) for i in ids(survey, show="labelled")
    }


def test_before_anything_is_scored_there_is_nothing_to_list(session, monkeypatch):
    def nothing(*_, **__):
        yield from ()

    monkeypatch.setattr("amatch_widgets.session.scoring.score_missing", nothing)
    survey = of(session)
    with pytest.raises(NotTrainedError, match="no scores"):
        survey.order()
    assert survey.id_of("00") not in session.pictures
    assert not session.archive_scores


def test_labels_are_listed_and_seen_while_a_new_cycle_has_not_come_to_them(make_session, session, survey):
    labels = {survey.id_of("70"): "anomaly", survey.id_of("71"): "normal"}
    session.label(labels)
    assert session._teaching.wait(WAIT_S)
    session.close()
    session = make_session(labels=None)
    (survey,) = session.archives.values()
    cycle = survey.parts.begin("another", "Ranked by another.")
    survey.parts.write_first(cycle, np.array([3]), ["03"], np.float32([0.5]))
    assert [(row.id, row.score) for row in listed(survey, "recent")] == [("71", None), ("70", None)]
    assert [row.id for row in listed(survey)] == ["03"]
    assert session.thumbnail(survey.id_of("71"))


def test_another_annotators_labels_of_the_archive_are_merged(make_session, session, survey, tmp_path):
    first, second = ids(survey)[:2]
    session.label({first: "anomaly"})
    session.close()
    other = make_session(path=tmp_path / "other", labels=None)
    other.labels.set({first: "normal", second: "anomaly", "elsewhere-00000000::1": "anomaly", "07": "normal"})
    other.close()
    session = make_session(labels=None)
    found = session.merge_labels(tmp_path / "other", take="theirs")
    assert found.unknown_ids == ("elsewhere-00000000::1",)
    assert {i: session.labels.get(i).label for i in (first, second)} == {first: "normal", second: "anomaly"}


def test_the_best_of_an_archive_are_exported_with_their_labels(session, survey, tmp_path):
    rows = listed(survey)
    session.label({survey.id_of(rows[1].id): "normal", survey.id_of(rows[40].id): "anomaly"}, by="ann")
    table = pd.read_csv(session.export(tmp_path / "top.csv", 5, archive="sky-5"), dtype={"id": str})
    assert table["id"].tolist() == [row.id for row in rows[:5]]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert table["label"].fillna("").tolist() == ["", "normal", "", "", ""]
    assert table["labelled_by"][1] == "ann"
    table = pd.read_csv(session.export(tmp_path / "labelled.csv", archive=survey.name), dtype={"id": str})
    assert table[["id", "rank", "label"]].to_numpy().tolist() == [
        [rows[1].id, 2, "normal"],
        [rows[40].id, 41, "anomaly"],
    ]
    parquet = pd.read_parquet(session.export(tmp_path / "top.parquet", 3, archive="sky-5"))
    assert len(parquet) == 3
    with pytest.raises(LabelError, match=r"'sky-6' names 0 archives of this session. There are 'sky-5-"):
        session.export(tmp_path / "x.csv", 3, archive="sky-6")
