"""A hunt with the truth as the person, on a session that is played by a few lists."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from amatch_widgets.errors import ConfigError, TooFewLabelsError
from amatch_widgets.hunt import PageFound, hunt_with_truth, pages_to_pandas

TRUTH = {f"{i:02d}": "anomaly" if i in {0, 5, 6, 13} else "normal" for i in range(14)}


class ListSession:
    """Shows images in the order of their ids and writes down what it is asked."""

    def __init__(self) -> None:
        self.kept = {"00": "anomaly", "01": "normal"}
        self.calls = []
        self.step = 0
        self.is_embedded = self.is_busy = False
        self.ranked_by = None
        self.source = list(TRUTH)
        self.labels = SimpleNamespace(current=lambda: dict(self.kept))

    def embed(self):
        self.calls.append(("embed",))
        self.is_embedded, self.ranked_by = True, "instant"

    def train(self, steps):
        self.calls.append(("train", steps))
        if "anomaly" not in self.kept.values():
            raise TooFewLabelsError("No anomaly is labelled.")
        self.step += steps or 100
        self.ranked_by = "both"

    def wait(self):
        self.calls.append(("wait",))

    def query(self, n, *, strategy):
        self.calls.append(("query", n, strategy))
        return [SimpleNamespace(image_id=i) for i in self.source if i not in self.kept][:n]

    def label(self, labels, *, by, reason):
        self.calls.append(("label", by, reason))
        self.kept |= labels


def test_each_page_trains_looks_and_labels_in_this_order():
    session = ListSession()
    list(hunt_with_truth(session, TRUTH, pages=1, per_page=6, steps=7, strategy="mixed"))
    assert session.calls == [("train", 7), ("wait",), ("query", 6, "mixed"), ("label", "truth", "mixed")]


def test_pages_say_what_they_brought_and_what_chance_would_have_brought():
    pages = list(hunt_with_truth(ListSession(), TRUTH, pages=2, per_page=6, steps=10))
    assert pages == [
        PageFound(
            page=1,
            step=10,
            ranked_by="both",
            shown=6,
            found=2,
            by_chance=6 * 3 / 12,
            found_so_far=2,
            looked_so_far=6,
            n_hidden=3,
        ),
        PageFound(
            page=2,
            step=20,
            ranked_by="both",
            shown=6,
            found=1,
            by_chance=6 * 1 / 6,
            found_so_far=3,
            looked_so_far=12,
            n_hidden=3,
        ),
    ]


def test_the_hunt_ends_early_when_every_image_has_a_label():
    session = ListSession()
    pages = list(hunt_with_truth(session, TRUTH, pages=9, per_page=8))
    assert [page.shown for page in pages] == [8, 4]
    assert session.calls.count(("wait",)) == 2
    assert session.kept == TRUTH


def test_nothing_is_done_before_the_first_page_is_asked_for():
    session = ListSession()
    hunt_with_truth(session, TRUTH)
    assert session.calls == []


def test_without_steps_the_embeddings_are_made_once_and_nothing_is_trained():
    session = ListSession()
    pages = list(hunt_with_truth(session, TRUTH, pages=2, per_page=6, steps=0))
    assert session.calls[:3] == [("embed",), ("wait",), ("query", 6, "top")]
    assert [call[0] for call in session.calls].count("embed") == 1
    assert "train" not in [call[0] for call in session.calls]
    assert [(page.step, page.ranked_by) for page in pages] == [(0, "instant")] * 2


def test_in_the_background_a_page_waits_for_no_training_and_begins_none_while_one_runs():
    session = ListSession()
    hunt = hunt_with_truth(session, TRUTH, pages=2, per_page=4, steps=7, background=True)
    next(hunt)
    assert [call[0] for call in session.calls] == ["embed", "wait", "wait", "train", "query", "label"]
    session.is_busy = True
    session.calls.clear()
    next(hunt)
    assert [call[0] for call in session.calls] == ["query", "label"]


def test_in_the_background_the_embeddings_rank_alone_until_both_classes_are_labelled():
    session = ListSession()
    session.kept = {}
    pages = list(hunt_with_truth(session, TRUTH, pages=2, per_page=4, steps=7, background=True))
    assert [page.step for page in pages] == [0, 7]
    assert pages[0].found == 1


def test_in_the_background_an_error_of_the_training_before_comes_out():
    session = ListSession()
    session.is_embedded = True

    def wait():
        raise RuntimeError("the loss is not a number")

    session.wait = wait
    with pytest.raises(RuntimeError, match="not a number"):
        next(hunt_with_truth(session, TRUTH, background=True))


def test_negative_steps_are_refused_at_the_call():
    with pytest.raises(ConfigError, match="steps is -1; it must be at least 0"):
        hunt_with_truth(ListSession(), TRUTH, steps=-1)


@pytest.mark.parametrize("option", ["pages", "per_page"])
def test_counts_below_one_are_refused_at_the_call(option):
    with pytest.raises(ConfigError, match=f"{option} is 0"):
        hunt_with_truth(ListSession(), TRUTH, **{option: 0})


def test_the_table_has_a_row_for_each_page_and_its_columns_without_any_page():
    pages = list(hunt_with_truth(ListSession(), TRUTH, pages=2, per_page=6))
    table = pages_to_pandas(pages)
    assert list(table.index) == [1, 2]
    assert list(table["found"]) == [2, 1]
    assert list(pages_to_pandas([]).columns) == list(table.columns)
