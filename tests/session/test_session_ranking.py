"""What a session hands out: queries, rankings, similar images, and tables of the best."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.errors import ConfigError, LabelError, NotTrainedError
from tests.session.helper import SKY, WAIT_S, cycle, holey, labels_of

# ---- queries ----------------------------------------------------------------------------------


def test_a_query_before_any_scores_is_random_and_says_so(session):
    found = session.query(5)
    assert len({c.image_id for c in found}) == 5
    assert {(c.score, c.reason) for c in found} == {(None, "random: nothing is scored yet")}


@pytest.mark.parametrize("strategy", ["top", "uncertain", "random", "mixed"])
def test_a_query_leaves_out_what_has_a_label_or_cannot_be_read(make_session, strategy):
    source = holey([i for i in range(60) if SKY.truth[SKY.ids[i]] == "normal"][-10:])
    some = list(SKY.ids[:12])
    session = make_session(source, labels={i: SKY.truth[i] for i in some} | {some[0]: "anomaly"})
    cycle(session)
    found = {c.image_id for c in session.query(60, strategy=strategy)}
    bad = {source.ids[i] for i in source.bad}
    assert found == set(source.ids) - set(labels_of(session)) - bad


def test_the_top_is_what_scores_highest_among_the_unlabelled(session):
    cycle(session)
    found = session.query(5)
    free = [i for i in session.ranking() if SKY.ids[i] not in labels_of(session)]
    assert [c.image_id for c in found] == [SKY.ids[i] for i in free[:5]]
    assert found[0].score == pytest.approx(float(session.scores[free[0]]))
    assert found[0].reason == "top: rank 1 of 48 unlabelled"


def test_rankings_show_what_is_asked_for(session):
    cycle(session)
    everything = session.ranking()
    assert (np.diff(session.scores[everything]) <= 0).all()
    assert sorted(everything) == list(range(60))
    np.testing.assert_array_equal(session.ranking("lowest"), everything[::-1])
    labelled, free = (session.ranking(show=s) for s in ("labelled", "unlabelled"))
    assert (len(labelled), len(free)) == (12, 48)
    assert not set(labelled) & set(free)
    session.label({SKY.ids[5]: "normal"})
    assert session.ranking("recent")[0] == 5
    assert len(session.ranking("recent", show="unlabelled")) == 0
    assert not np.array_equal(session.ranking("random", seed=1), session.ranking("random", seed=2))


@pytest.mark.parametrize("how", ["highest", "recent"])
def test_an_unknown_ranking_is_refused(session, how):
    with pytest.raises(ConfigError, match="Unknown show='some'"):
        session.ranking(how, show="some")
    with pytest.raises(ConfigError, match="Did you mean 'highest'"):
        session.ranking("higest")


def test_similar_images_come_with_their_cosine(session):
    with pytest.raises(NotTrainedError, match=r"session\.embed\(\)"):
        session.similar(SKY.ids[0])
    session.embed()
    session.wait(WAIT_S)
    found = session.similar(SKY.ids[0], 5)
    assert len({c.image_id for c in found} - {SKY.ids[0]}) == 5
    assert all(c.reason.startswith("similar: cosine ") for c in found)
    assert session.similar([SKY.ids[0], SKY.ids[1]], 3)
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        session.similar(["x"])
    with pytest.raises(LabelError, match="name at least one image"):
        session.similar([])


def test_similar_images_can_be_chosen_among_a_few(session):
    session.embed()
    session.wait(WAIT_S)
    everywhere = session.similar(SKY.ids[0], 59)
    few = {c.image_id for c in everywhere[::10]}
    assert session.similar(SKY.ids[0], 59, among=few) == [c for c in everywhere if c.image_id in few]
    assert session.similar(SKY.ids[0], 2, among=[*few, SKY.ids[0]]) == everywhere[:11:10]
    assert session.similar(SKY.ids[0], 2, among=[]) == []
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        session.similar(SKY.ids[0], among=["x"])


# ---- tables -----------------------------------------------------------------------------------


def test_tables_hold_scores_ranks_and_labels(session, tmp_path):
    cycle(session)
    table = session.top(60)
    assert table["rank"].tolist() == list(range(1, 61))
    assert table["score"].is_monotonic_decreasing
    assert (table["label"] == "anomaly").sum() == 4
    path = session.export(tmp_path / "out" / "top.csv", n=7)
    assert pd.read_csv(path, dtype={"id": str})["id"].tolist() == table["id"][:7].tolist()
    labelled = pd.read_csv(session.export(str(tmp_path / "labelled.csv")), dtype={"id": str})
    assert dict(zip(labelled["id"], labelled["label"], strict=True)) == labels_of(session)
    assert labelled["rank"].is_monotonic_increasing


def test_a_table_of_the_best_before_any_scores_is_refused(session, tmp_path):
    with pytest.raises(NotTrainedError, match="Train first"):
        session.top(3)
    with pytest.raises(NotTrainedError, match="Train first"):
        session.export(tmp_path / "best.csv", n=3)
    assert not (tmp_path / "best.csv").exists()


def test_the_labels_can_be_exported_before_any_scores(session, tmp_path):
    table = pd.read_csv(session.export(tmp_path / "labels.csv"))
    assert len(table) == len(session.labels)
    assert table["score"].isna().all()
    assert (table["rank"] == 0).all()


def test_what_has_risen_is_seen_against_the_ranking_a_page_of_labels_ago(session):
    session.embed()
    session.wait(WAIT_S)
    session.query(1)
    before = session.ranking()
    np.testing.assert_array_equal(session.ranking("rising"), before)  # there is no earlier one
    free = [SKY.ids[i] for i in session.ranking("random", show="unlabelled")[:24]]
    session.label({i: SKY.truth[i] for i in free})
    session.query(1)
    rank = {int(i): k for k, i in enumerate(session.ranking(), 1)}
    was = {int(i): k for k, i in enumerate(before, 1)}
    gains = [np.log(was[int(i)] / rank[int(i)]) for i in session.ranking("rising")]
    assert gains[0] > 0
    assert (np.diff(gains) <= 1e-12).all()
    told = [dict(enumerate(ranks.tolist())) for ranks in session.rise()]
    assert told == [was, rank]


def test_twins_are_the_images_that_look_the_same(make_session):
    class Doubled(type(SKY)):
        def read(self, index, *, min_side=None):
            return super().read(3 if index == 50 else index, min_side=min_side)

    session = make_session(Doubled(60, size=32, prevalence=0.2))
    assert session.twins(SKY.ids[3]) == {}
    session.embed()
    session.wait(WAIT_S)
    found = session.twins(SKY.ids, least=0.999)
    assert found == {SKY.ids[3]: [SKY.ids[50]], SKY.ids[50]: [SKY.ids[3]]}
    with pytest.raises(LabelError, match="Unknown image id"):
        session.twins(["x"])
    with pytest.raises(ConfigError, match="above 0"):
        session.twins(SKY.ids[3], least=0)


# ---- a second look ----------------------------------------------------------------------------


def test_without_labels_there_is_nothing_to_look_at_again(make_session):
    session = make_session(labels=None)
    assert session.suspicious() == []
    assert len(session.ranking("second look")) == 0
    with pytest.raises(ConfigError, match="n is -1"):
        session.suspicious(-1)


def test_before_there_are_scores_labelled_images_come_in_any_order(session):
    assert {c.image_id for c in session.suspicious()} == set(labels_of(session))


def test_labels_are_held_against_fits_that_were_not_shown_them(session, monkeypatch):
    session.embed()
    session.wait(WAIT_S)
    known = labels_of(session)
    asked = []

    def held_out(labels):
        asked.append(labels)
        margins = {i: 3.0 * label for i, label in labels.items()}
        return margins | {wrong: 3.0}

    wrong = SKY.ids.index(next(i for i, label in known.items() if label == "normal"))
    monkeypatch.setattr(session._tiers, "held_out", held_out)
    first, *others = session.suspicious(5)
    assert asked[0].keys() == {SKY.ids.index(i) for i in known}  # those held out for the metrics too
    assert (first.image_id, len(others)) == (SKY.ids[wrong], 4)
    assert first.reason.startswith("second look: labelled normal, 1.")
    assert first.reason.endswith("of the way to anomaly")
    order = session.ranking("second look", show="labelled")
    assert (order[0], len(order)) == (wrong, len(known))
    assert set(session.ranking("second look", show="anomaly")) == {
        SKY.ids.index(i) for i, label in known.items() if label == "anomaly"
    }


def test_a_second_look_works_on_real_embeddings(session):
    session.embed()
    session.wait(WAIT_S)
    found = session.suspicious()
    assert {c.image_id for c in found} == set(labels_of(session))
