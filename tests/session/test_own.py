"""A session on very many images: its own are a sample, and all of them can be scored and labelled."""

from __future__ import annotations

import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, LabelError, SourceError
from amatch_widgets.images.joined import Subset
from amatch_widgets.session import Session, own
from amatch_widgets.session.own import own_images
from tests.session.helper import WAIT_S

WHOLE = sky(120, size=32, seed=3, prevalence=0.2)
KNOWN = dict(list(WHOLE.truth.items())[-12:])  # far from what a sample of the first would have


@pytest.fixture
def open_part(tmp_path, light):
    """Open a session of 40 of the images; it is closed in the end."""
    opened = []

    def make(source=WHOLE, *, labels=KNOWN, n=40):
        session = Session(source, path=tmp_path / "run", labels=labels, train=light(), sample=n)
        opened.append(session)
        return session

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def session(open_part):
    session = open_part()
    session.embed()
    session.wait(WAIT_S)
    return session


@pytest.fixture
def survey(session):
    session.score(WHOLE)
    session.wait(WAIT_S)
    (archive,) = session.archives.values()
    return archive


def shown(archive, **options):
    rows = archive.order("highest", **options).rows(0, 200)
    archive.remember(rows)
    return [archive.id_of(row.id) for row in rows]


def test_its_own_images_are_a_sample_with_the_first_labels(session):
    assert len(session.source) == 40
    assert set(KNOWN) <= set(session.source.ids) <= set(WHOLE.ids)
    assert {i: line.label for i, line in session.labels.current().items()} == KNOWN
    assert (
        "shows 40 of the 120 images of 'sky-3'. “score other images”, or session.score(source),"
        in session.notices[0]
    )


def test_labels_from_a_table_are_in_the_sample(open_part, tmp_path):
    table = tmp_path / "known.csv"
    table.write_text("id,label\n" + "".join(f"{i},{label}\n" for i, label in KNOWN.items()))
    session = open_part(labels=table)
    assert set(KNOWN) <= set(session.source.ids)
    assert len(session.labels.current()) == 12


@pytest.mark.parametrize("given", ["all", "other number", "nothing"])
def test_it_goes_on_with_the_same_images(open_part, tmp_path, given):
    first = open_part()
    ids = list(first.source.ids)
    first.close()
    if given == "nothing":
        again = Session.open(tmp_path / "run")
    else:
        again = open_part(labels=None, n=None if given == "all" else 7)
    with again:
        assert list(again.source.ids) == ids
        assert again.notices


def test_labels_outside_the_sample_are_left_out_and_said_when_it_goes_on(open_part):
    first = open_part()
    outside = [i for i in WHOLE.ids if i not in first.source.ids]
    first.close()
    inside = next(i for i in first.source.ids if i not in KNOWN)
    again = open_part(labels={outside[0]: "anomaly", inside: "normal", outside[1]: "normal"})
    assert {i: line.label for i, line in again.labels.current().items()} == {**KNOWN, inside: "normal"}
    assert f"2 of the labels given, the first for {outside[0]!r}, are of images outside" in again.notices[-1]


def test_an_image_outside_the_sample_is_told_from_one_that_is_not_there(session):
    outside = next(i for i in WHOLE.ids if i not in session.source.ids)
    with pytest.raises(LabelError, match=rf"'{outside}' is not in the sample .* Score all.* No label was"):
        session.label({outside: "anomaly"})
    with pytest.raises(LabelError, match="Unknown image id 'nobody'"):
        session.label({"nobody": "anomaly"})


def test_other_images_are_refused(open_part):
    open_part().close()
    with pytest.raises(SourceError, match=r"The session in .* is of 'sky-3' with 40 images; found 'sky-4'"):
        open_part(sky(120, size=32, seed=4), labels=None)


def test_all_images_up_to_a_limit_are_its_own_and_of_more_a_sample(monkeypatch):
    def n_of(**options):
        return len(own_images(WHOLE, None, labels=None, seed=0, **{"n": None, **options}))

    assert n_of() == n_of(n=120) == n_of(n=500) == 120
    monkeypatch.setattr(own, "_OF_MORE", 50)
    monkeypatch.setattr(own, "_MOST", 120)
    assert n_of() == 120
    monkeypatch.setattr(own, "_MOST", 119)
    assert n_of() == 50
    assert n_of(n=90) == 90
    assert isinstance(own_images(WHOLE, None, n=None, labels=None, seed=0), Subset)


@pytest.mark.parametrize("n", [0, -1, True, 2.5, "9"])
def test_a_wrong_number_is_named(open_part, n):
    with pytest.raises(ConfigError, match=r"Session\(sample=.*whole number from 1 on, or None"):
        open_part(n=n)


def test_an_image_of_the_sample_is_the_same_one_among_all(session, survey):
    names = shown(survey)
    assert len(set(names)) == len(names) == 120
    assert [i for i in names if i in session.source.ids] == [i for i in names if "::" not in i]
    assert len([i for i in names if "::" not in i]) == 40
    assert all(session.archive_of(i) is (survey if "::" in i else None) for i in names)
    assert {i.rpartition("::")[2] for i in names} == set(WHOLE.ids)


def test_what_is_labelled_in_the_sample_is_labelled_among_all(session, survey):
    assert len(shown(survey, show="unlabelled")) == 108
    assert set(shown(survey, show="labelled")) == set(KNOWN)
    (other, mine) = (
        next(i for i in shown(survey, show="unlabelled") if ("::" in i) is far) for far in (True, False)
    )
    session.label({other: "anomaly", mine: "normal"})
    assert len(shown(survey, show="unlabelled")) == 106
    assert {other, mine} <= set(shown(survey, show="labelled"))
    assert session.labels.current()[mine].label == "normal"
    assert session.own_labels.counts()["normal"] == sum(v == "normal" for v in KNOWN.values()) + 1


def test_the_same_holds_after_it_was_opened_again(session, survey, tmp_path):
    before = shown(survey)
    session.close()
    with Session.open(tmp_path / "run") as again:
        (found,) = again.archives.values()
        assert shown(found) == before
        assert set(shown(found, show="labelled")) == set(KNOWN)


def test_other_images_with_the_same_ids_are_not_its_own(session):
    session.score(sky(120, size=32, seed=9))
    session.wait(WAIT_S)
    (other,) = session.archives.values()
    assert all("::" in i for i in shown(other))
