from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amatch_widgets.errors import JournalError, LabelError, StateError
from amatch_widgets.labels import LabelStore
from amatch_widgets.labels import journal as journal_module

IDS = ["a", "b", "c"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def _state(store):
    """What is said of the images, without when and by which action."""
    said = {**store.current(), **store.unlabelled()}
    return {i: (line.label, line.tags, line.note, line.star, line.split) for i, line in said.items()}


def _labels(store):
    return {i: line.label for i, line in store.current().items()}


# ---- undo and redo --------------------------------------------------------------------------


def test_a_label_is_undone_and_done_again(path):
    store = LabelStore(path)
    store.set({"a": "anomaly"})
    assert (store.n_undo, store.n_redo) == (1, 0)
    (line,) = store.undo(by="me")
    assert (line.label, line.by, line.reason, line.undoes) == (None, "me", "undo", 1)
    assert (_labels(store), store.n_undo, store.n_redo) == ({}, 0, 1)
    store.redo()
    assert (_labels(store), store.n_undo, store.n_redo) == ({"a": "anomaly"}, 1, 0)


def test_a_call_with_many_labels_is_one_action():
    store = LabelStore(None)
    store.set({"a": "anomaly"})
    store.set({"a": "normal", "b": "normal", "c": "normal"})
    store.undo()
    assert _labels(store) == {"a": "anomaly"}
    store.redo()
    assert _labels(store) == {"a": "normal", "b": "normal", "c": "normal"}


def test_labels_join_an_earlier_action_and_are_undone_with_it(path):
    store = LabelStore(path)
    (line,) = store.set({"a": "anomaly"})
    store.set({"c": "normal"})
    store.undo()
    (joined,) = store.set({"b": "anomaly"}, action=line.action)
    assert (joined.action, store.n_undo, store.n_redo) == (line.action, 1, 1)
    store.redo()  # nothing new was done: the other action is there still
    store.close()
    store = LabelStore(path)
    assert (store.n_undo, _labels(store)) == (2, {"a": "anomaly", "b": "anomaly", "c": "normal"})
    store.undo()
    store.undo()
    assert _labels(store) == {}
    store.redo()
    assert _labels(store) == {"a": "anomaly", "b": "anomaly"}


def test_labels_do_not_join_an_action_that_was_undone():
    store = LabelStore(None)
    (line,) = store.set({"a": "anomaly"})
    store.undo()
    n = store.version
    assert store.set({"b": "anomaly"}, action=line.action) == []
    assert store.set({"b": "anomaly"}, action=99) == []
    assert (store.version, store.n_redo) == (n, 1)


def test_a_new_action_ends_what_could_be_done_again():
    store = LabelStore(None)
    store.set({"a": "anomaly"})
    store.undo()
    store.set({"b": "normal"})
    assert (store.n_undo, store.n_redo) == (1, 0)
    assert store.redo() == []
    assert _labels(store) == {"b": "normal"}


def test_where_nothing_is_left_to_undo_nothing_is_written(path):
    store = LabelStore(path)
    assert store.undo() == store.redo() == []
    assert not path.exists()


def test_a_table_that_was_read_is_not_undone():
    store = LabelStore(None)
    store.set({"a": "anomaly"}, can_undo=False)
    assert (store.n_undo, store.undo()) == (0, [])
    store.set({"a": "normal"})
    store.undo()
    assert _labels(store) == {"a": "anomaly"}


def test_an_older_journal_opens_and_offers_nothing_to_undo(path):
    path.write_text('{"id": "a", "label": "anomaly", "split": "train"}\n')
    store = LabelStore(path)
    assert (_labels(store), store.n_undo) == ({"a": "anomaly"}, 0)
    store.set({"a": "normal"})
    store.undo()
    assert _labels(store) == {"a": "anomaly"}


def test_what_was_undone_keeps_its_split():
    store = LabelStore(None, test_share=0.5)
    for k in range(12):
        store.set({f"{k}": "normal"})
    before = _state(store)
    for _ in range(12):
        store.undo()
    for _ in range(12):
        store.redo()
    assert _state(store) == before


_ACTIONS = st.one_of(
    st.tuples(
        st.just("set"), st.dictionaries(st.sampled_from(IDS), st.sampled_from(["anomaly", "normal", None]))
    ),
    st.tuples(st.just("star"), st.lists(st.sampled_from(IDS)), st.booleans()),
    st.tuples(st.just("tag"), st.lists(st.sampled_from(IDS)), st.sampled_from(["merger", "lens"])),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
)


def _do(store, action):
    match action:
        case ("set", labels):
            return store.set(labels)
        case ("star", ids, star):
            return store.annotate(ids, star=star)
        case ("tag", ids, tag):
            return store.annotate(ids, add=[tag])
    return getattr(store, action[0])()


@settings(deadline=None, max_examples=25)
@given(actions=st.lists(_ACTIONS, max_size=12))
def test_undo_and_redo_walk_over_the_states_also_after_a_restart(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("run") / "labels.jsonl"
    store = LabelStore(path, test_share=0)
    states, at = [_state(store)], 0
    for action in actions:
        if not _do(store, action):
            continue
        at += {"undo": -1, "redo": 1}.get(action[0], 1)
        if action[0] not in {"undo", "redo"}:
            del states[at:]
            states.append(_state(store))
        assert _state(store) == states[at]
    store.close()
    again = LabelStore(path, test_share=0)
    assert (again.n_undo, again.n_redo) == (at, len(states) - 1 - at)
    for expected in reversed(states[:at]):
        again.undo()
        assert _state(again) == expected
    for expected in states[1:]:
        again.redo()
        assert _state(again) == expected
    again.close()


def test_an_undo_that_cannot_be_written_changes_nothing(path, monkeypatch):
    store = LabelStore(path)
    store.set({"a": "anomaly"})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", full)
        with pytest.raises(JournalError):
            store.undo()
    assert (_labels(store), store.n_undo, store.n_redo) == ({"a": "anomaly"}, 1, 0)
    store.undo()
    assert _labels(store) == {}


def test_a_closed_store_undoes_nothing(path):
    store = LabelStore(path)
    store.set({"a": "anomaly"})
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.undo()


# ---- stars, tags and notes ------------------------------------------------------------------


def test_an_image_without_a_label_can_be_starred_tagged_and_noted(path):
    store = LabelStore(path)
    store.annotate(["a"], by="me", star=True, add=["merger"], note="look again")
    line = LabelStore(path).get("a")
    assert (line.label, line.star, line.tags, line.note, line.by) == (
        None,
        True,
        ("merger",),
        "look again",
        "me",
    )
    assert (len(store), store.current(), list(store.unlabelled())) == (0, {}, ["a"])
    assert store.counts() == {"normal": 0, "anomaly": 0}


def test_a_label_leaves_star_tags_and_note_as_they_are():
    store = LabelStore(None)
    store.annotate(["a"], star=True, add=["merger"], note="two cores")
    for label in ("anomaly", None):
        (line,) = store.set({"a": label})
        assert (line.star, line.tags, line.note) == (True, ("merger",), "two cores")
    assert list(store.unlabelled()) == ["a"]


def test_a_star_leaves_label_and_score_as_they_are():
    store = LabelStore(None)
    store.set({"a": "anomaly"}, scores={"a": 0.75}, step=3, reason="top: rank 1")
    (line,) = store.annotate(["a"], star=True)
    assert (line.label, line.score, line.step, line.reason, line.star) == (
        "anomaly",
        0.75,
        3,
        "top: rank 1",
        True,
    )


def test_tags_are_added_once_removed_and_counted():
    store = LabelStore(None)
    store.annotate(["a", "b", "a"], add=["merger", "merger"])
    store.annotate(["b"], add=["lens"], remove=["merger", "artefact"])
    store.set({"c": "normal"}, tags=["lens"])
    assert store.get("b").tags == ("lens",)
    assert store.tags() == {"lens": 2, "merger": 1}


def test_what_is_so_already_writes_no_line(path):
    store = LabelStore(path)
    assert store.annotate(["a"], star=False, remove=["merger"]) == []
    assert not path.exists()
    store.annotate(["a"], star=True)
    assert store.annotate(["a"], star=True) == []
    assert store.n_undo == 1


def test_the_last_thing_taken_away_leaves_nothing():
    store = LabelStore(None)
    store.annotate(["a"], star=True)
    store.annotate(["a"], star=False)
    assert store.get("a") is None
    assert len(store.history("a")) == 2


def test_one_string_of_tags_is_refused_here_too():
    with pytest.raises(LabelError, match="give a list"):
        LabelStore(None).annotate(["a"], add="merger")


def test_tags_are_counted_as_they_are_over_changes_undo_and_a_restart(path):
    store = LabelStore(path)
    store.annotate(["a", "b"], add=["merger"])
    store.set({"a": "anomaly"})
    store.set({"a": "normal"}, tags=["lens"])
    assert store.tags() == {"merger": 1, "lens": 1}
    store.undo()
    assert store.tags() == LabelStore(path).tags() == {"merger": 2}
    store.annotate(["a", "b"], remove=["merger"])
    assert store.tags() == {}
