from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.labels import LabelStore
from amatch_widgets.session.selection import Filter, Selection

IDS = ["a/One.png", "a/two.png", "b/one.png", "b/TWO.png", "straße.png", "line\nbreak.png"]
SCORES = np.array([0.9, 0.5, 0.1, np.nan, 0.7, 0.3], np.float32)


@pytest.fixture
def labels():
    store = LabelStore(None)
    store.set({IDS[0]: "anomaly", IDS[2]: "normal"}, tags=["ring"])
    store.set({IDS[1]: "anomaly"})
    store.annotate([IDS[2], IDS[4]], star=True)
    store.annotate([IDS[4]], add=["lens"])
    store.set({"elsewhere.png": "anomaly"})  # of another source
    return store


@pytest.fixture
def choose(labels):
    selection = Selection(IDS, {i: k for k, i in enumerate(IDS)}, labels, lambda: [IDS[5], IDS[3]])

    def chosen(show="all", **only):
        found = selection.choose(show, Filter(**only), SCORES)
        return None if found is None else found.tolist()

    return chosen


def test_all_images_need_no_list(choose):
    assert choose() is None


@pytest.mark.parametrize(
    ("show", "found"),
    [
        ("unlabelled", [3, 4, 5]),
        ("labelled", [2, 1, 0]),  # the latest change first
        ("anomaly", [1, 0]),
        ("normal", [2]),
        ("starred", [2, 4]),
        ("problem", [3, 5]),
    ],
)
def test_images_are_chosen_by_what_is_known_of_them(choose, show, found):
    assert choose(show) == found


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ({"contains": "ONE"}, [0, 2]),
        ({"contains": "STRASSE"}, [4]),
        ({"contains": "line\n"}, [5]),
        ({"contains": ".*"}, []),
        ({"tag": "ring"}, [0, 2]),
        ({"tag": "lens"}, [4]),
        ({"tag": "len"}, []),
        ({"least": 0.5}, [0, 1, 4]),
        ({"most": 0.5}, [1, 2, 5]),
        ({"least": 0.5, "most": 0.5}, [1]),
        ({"least": 0.4, "contains": "one"}, [0]),
    ],
)
def test_a_filter_keeps_what_has_all_it_asks_for(choose, only, found):
    assert choose(**only) == found


def test_a_filter_works_on_what_is_shown(choose):
    assert choose("labelled", contains="one") == [2, 0]
    assert choose("unlabelled", least=0.2) == [4, 5]


@pytest.mark.parametrize("only", [{"least": 0.6, "most": 0.4}, {"least": -0.1}, {"most": 2}])
def test_a_range_that_is_none_is_refused(only):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Filter(**only)


def test_an_unknown_show_is_refused(choose):
    with pytest.raises(ConfigError, match="Unknown show='best'"):
        choose("best")


def test_what_was_found_is_not_taken_for_another_text(choose, labels):
    assert choose(contains="one") == [0, 2]
    assert choose(contains="two") == [1, 3]
    assert choose("unlabelled", contains="two") == [3]
    labels.set({IDS[3]: "normal"})
    assert choose("unlabelled", contains="TWO") == []
