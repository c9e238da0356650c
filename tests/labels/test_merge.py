"""Two journals of the same images, brought together."""

from __future__ import annotations

import csv
import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amatch_widgets.errors import ConfigError
from amatch_widgets.labels import LabelStore
from amatch_widgets.labels.label import Label
from amatch_widgets.labels.merge import merge
from amatch_widgets.labels.reason import AT_THE_START, from_table, was_looked_at

IDS = [f"{k}.png" for k in range(60)]
_clock = itertools.count()


def line(image_id, label, by="ann", **more):
    n = next(_clock)
    time = f"2026-01-01T00:{n // 60 % 60:02d}:{n % 60:02d}.{n // 3600:03d}+00:00"
    return Label(image_id=image_id, label=label, by=by, **{"time": time, **more})


def merged(mine, theirs, **options):
    """Merge, and return the result and all lines of mine after it."""
    found = merge(mine, theirs, name="ben", ids=IDS, **options)
    action = 1 + max((x.action or 0 for x in mine), default=0)
    return found, [*mine, *(dataclasses.replace(x, action=action) for x in found.lines)]


def now(lines):
    return {x.image_id: x.label for x in lines}


def test_what_only_they_labelled_is_taken_over_as_they_said_it_in_their_order():
    theirs = [
        line("1.png", "normal", "ben", tags=("ring",), note="faint", star=True, reason="top: rank 3"),
        line("0.png", "anomaly", "ben"),
        line("1.png", "anomaly", "cat", tags=("ring",), note="faint", star=True, reason="top: rank 3"),
    ]
    found, after = merged([], theirs)
    assert [x.image_id for x in found.lines] == ["0.png", "1.png"]
    last = after[-1]
    assert dataclasses.replace(last, reason="top: rank 3", action=None) == theirs[-1]
    assert last.reason == "merged from ben: top: rank 3"
    assert not was_looked_at(last.reason)
    assert (found.n_labels, found.disagreements) == (2, ())


def test_what_both_label_alike_stays_and_tags_notes_and_stars_are_joined():
    mine = [line("0.png", "anomaly", tags=("blue",), note="mine"), line("1.png", "normal")]
    theirs = [
        line("0.png", "anomaly", "ben", tags=("ring", "blue"), note="theirs", star=True),
        line("1.png", "normal", "ben"),
    ]
    found, _ = merged(mine, theirs)
    (new,) = found.lines
    assert (new.label, new.by, new.time) == ("anomaly", "ann", mine[0].time)
    assert (new.tags, new.note, new.star) == (("blue", "ring"), "mine\ntheirs", True)
    assert found.n_labels == 0


def test_different_labels_are_listed_and_not_changed(tmp_path):
    mine, theirs = [line("0.png", "anomaly")], [line("0.png", "normal", "ben")]
    found, after = merged(mine, theirs)
    assert after == mine
    file = found.save_disagreements(tmp_path / "d.csv")
    assert list(csv.reader(file.read_text().splitlines())) == [
        ["id", "mine", "mine_by", "mine_time", "theirs", "theirs_by", "theirs_time", "now"],
        ["0.png", "anomaly", "ann", mine[0].time, "normal", "ben", theirs[0].time, "anomaly"],
    ]
    assert repr(found) == "MergeResult('ben': 0 labels taken, 0 joined, 1 disagreement)"
    table = found.to_pandas()
    assert table.loc[0, "theirs_by"] == "ben"
    assert list(table["is_disagreement"]) == [True]


def test_tags_are_joined_even_where_the_labels_disagree():
    mine, theirs = [line("0.png", "anomaly")], [line("0.png", "normal", "ben", tags=("ring",))]
    found, after = merged(mine, theirs)
    assert (after[-1].label, after[-1].by, after[-1].tags) == ("anomaly", "ann", ("ring",))
    assert len(found.disagreements) == 1


@pytest.mark.parametrize(
    ("take", "theirs_later", "expected"),
    [
        ("theirs", True, "normal"),
        ("theirs", False, "normal"),
        ("mine", True, "anomaly"),
        ("newest", True, "normal"),
        ("newest", False, "anomaly"),
    ],
)
def test_disagreements_are_settled_as_was_asked_for(take, theirs_later, expected):
    older, newer = line("0.png", None), line("0.png", None)
    first, second = (older, newer) if theirs_later else (newer, older)
    mine = [dataclasses.replace(first, label="anomaly")]
    theirs = [dataclasses.replace(second, label="normal", by="ben")]
    found, after = merged(mine, theirs, take=take)
    assert now(after) == {"0.png": expected}
    assert len(found.disagreements) == 1
    again, _ = merged(after, theirs, take=take)
    assert again.lines == ()


def test_another_take_is_refused():
    with pytest.raises(ConfigError, match="'newest'"):
        merge([], [], name="ben", ids=IDS, take="both")


@pytest.mark.parametrize(
    ("here", "there", "expected", "n_disagreements"),
    [
        ([], ["normal"], "normal", 0),  # changed there
        ([], [None], None, 0),  # taken back there
        (["normal"], [], "normal", 0),  # changed here
        ([None], [], None, 0),
        (["normal"], ["normal"], "normal", 0),  # both, alike
        (["normal"], [None], "normal", 1),  # both, differently
        ([], ["normal", "anomaly"], "anomaly", 0),  # back to what it was
    ],
)
def test_of_what_both_knew_the_side_that_changed_it_wins(here, there, expected, n_disagreements):
    common = [line("0.png", "anomaly", action=1)]
    mine = common + [line("0.png", label) for label in here]
    theirs = common + [line("0.png", label, "ben") for label in there]
    found, after = merged(mine, theirs)
    assert now(after) == {"0.png": expected}
    assert len(found.disagreements) == n_disagreements


def test_tags_and_notes_that_were_removed_there_are_removed_here():
    common = [line("0.png", "anomaly", tags=("a", "b"), note="old", star=True)]
    theirs = [
        *common,
        dataclasses.replace(common[0], tags=("b",), note="", star=False, by="ben", time="later"),
    ]
    _, after = merged([*common], theirs)
    assert (after[-1].tags, after[-1].note, after[-1].star, after[-1].by) == (("b",), "", False, "ben")
    changed = dataclasses.replace(common[0], tags=("a", "b", "c"), note="new", time="late")
    _, after = merged([*common, changed], theirs)
    assert (after[-1].tags, after[-1].note, after[-1].star) == (("b", "c"), "new", False)


def test_sessions_that_began_with_the_same_table_know_it_as_common():
    for reason in (AT_THE_START, from_table("l.csv")):
        mine = [line("0.png", "normal", "", reason=reason)]
        theirs = [line("0.png", "normal", "", reason=reason), line("0.png", "anomaly", "ben")]
        found, after = merged(mine, theirs)
        assert now(after) == {"0.png": "anomaly"}
        assert found.disagreements == ()


def test_what_was_changed_after_a_merge_is_no_disagreement():
    theirs = [line("0.png", "anomaly", "ben")]
    _, mine = merged([], theirs)
    mine.append(line("0.png", "normal"))
    found, _ = merged(mine, theirs)
    assert (found.lines, found.disagreements) == ((), ())
    back, _ = merged(theirs, mine)  # and the other way round it is taken
    assert [x.label for x in back.lines] == ["normal"]


def test_two_that_took_each_others_label_still_disagree():
    a, b = line("0.png", "anomaly"), line("0.png", "normal", "ben")
    _, mine = merged([a], [b], take="theirs")
    _, theirs = merged([b], [a], take="theirs")
    assert (now(mine), now(theirs)) == ({"0.png": "normal"}, {"0.png": "anomaly"})
    found, _ = merged(mine, theirs)
    assert len(found.disagreements) == 1


def test_ids_of_no_image_and_splits_that_differ_are_told():
    theirs = [
        line("gone.png", "anomaly", "ben"),
        line("bare.png", None, "ben"),
        line("0.png", "normal", "ben", split="test"),
    ]
    found, _ = merged([line("0.png", "normal")], theirs)
    assert (found.lines, found.unknown_ids, found.n_splits_differ) == ((), ("gone.png",), 1)
    assert repr(found).endswith("1 of no image here, 1 held out on one side only)")


# ---- with the store --------------------------------------------------------------------------


def merge_into(store, other, **options):
    return store.merge(lambda mine: merge(mine, other.history(), name="ben", ids=IDS, **options).lines)


def state(store):
    said = store.current() | store.unlabelled()
    return {i: (x.label, x.tags, x.note, x.star, x.by, x.time, x.split) for i, x in said.items()}


@pytest.fixture
def two(tmp_path):
    """Two stores that began alike and went on differently."""
    mine = LabelStore(tmp_path / "mine.jsonl")
    mine.set(dict.fromkeys(IDS[:20], "normal"), by="ann")
    (tmp_path / "theirs.jsonl").write_bytes((tmp_path / "mine.jsonl").read_bytes())
    theirs = LabelStore(tmp_path / "theirs.jsonl")
    mine.set({IDS[0]: "anomaly", IDS[30]: "normal"}, by="ann")
    theirs.set({IDS[1]: "anomaly", IDS[2]: None, IDS[40]: "anomaly"}, by="ben", tags=["odd"])
    theirs.set(dict.fromkeys(IDS[41:], "normal"), by="ben")
    theirs.annotate([IDS[31]], by="ben", star=True)
    return mine, theirs


def test_a_merge_is_one_action_that_one_undo_takes_back(two):
    mine, theirs = two
    before, n_undo = state(mine), mine.n_undo
    lines = merge_into(mine, theirs)
    assert mine.n_undo == n_undo + 1
    assert {x.by for x in lines} == {"ben"}
    assert mine.get(IDS[2]).label is None
    assert mine.get(IDS[31]).star
    after = state(mine)
    again = LabelStore(mine.path)
    assert state(again) == after
    again.undo(by="ann")
    strip = {i: x[:4] for i, x in before.items()}
    assert {i: x[:4] for i, x in state(again).items()} == strip


def test_merging_twice_and_both_ways_changes_nothing_more(two):
    mine, theirs = two
    merge_into(mine, theirs)
    assert merge_into(mine, theirs) == []
    merge_into(theirs, mine)
    assert merge_into(mine, theirs) == []
    assert {i: x[:5] for i, x in state(mine).items()} == {i: x[:5] for i, x in state(theirs).items()}


def test_a_merge_that_was_undone_can_be_made_again_and_does_not_travel(two):
    mine, theirs = two
    lines = merge_into(mine, theirs)
    mine.undo()
    assert merge_into(theirs, mine, take="theirs")  # what is new here
    assert theirs.get(IDS[1]).label == "anomaly"  # what was only undone here
    assert len(merge_into(mine, theirs)) == len(lines)
    mine.undo()
    mine.redo()
    assert merge_into(mine, theirs) == []


def test_no_label_moves_between_training_and_test(two):
    mine, theirs = two
    splits = {i: x.split for i, x in mine.current().items()}
    there = {i: x.split for i, x in theirs.current().items()}
    merge_into(mine, theirs, take="theirs")
    again = LabelStore(mine.path)
    for store in (mine, again):
        kept = {i: x.split for i, x in store.current().items()}
        assert all(kept[i] == split for i, split in splits.items() if i in kept)
        assert all(kept[i] == there[i] for i in kept.keys() - splits.keys())
    assert "test" in {there[i] for i in IDS[41:]}


def test_where_nothing_is_held_out_merged_labels_train(two):
    store = LabelStore(None, test_share=0)
    merge_into(store, two[1])
    assert {x.split for x in store.current().values()} == {"train"}


_ACTION = st.tuples(
    st.sampled_from(["mine", "theirs"]),
    st.sampled_from(["set", "set", "annotate", "undo", "redo", "merge"]),
    st.sampled_from(IDS[:3]),
    st.sampled_from(["anomaly", "normal", None]),
    st.sampled_from([None, "theirs", "mine", "newest"]),
)


@given(st.lists(_ACTION, max_size=14), st.sampled_from([None, "theirs", "mine", "newest"]))
def test_whatever_was_done_a_second_merge_changes_nothing_and_an_undo_takes_the_first_back(actions, take):
    ticks = itertools.count()
    stores = {"mine": LabelStore(None), "theirs": LabelStore(None)}
    for who, what, image_id, label, settle in actions:
        store, other = stores[who], stores["theirs" if who == "mine" else "mine"]
        by = f"{who} {next(ticks)}"  # the clock is too coarse for a machine's pace
        if what == "set":
            store.set({image_id: label}, by=by)
        elif what == "annotate":
            store.annotate([image_id], by=by, add=[str(label)], star=label == "anomaly", note=str(label))
        elif what == "merge":
            merge_into(store, other, take=settle)
        else:
            getattr(store, what)(by=by)
    mine, theirs = stores["mine"], stores["theirs"]
    before = {i: x[:4] for i, x in state(mine).items()}
    done = merge_into(mine, theirs, take=take)
    assert merge_into(mine, theirs, take=take) == []
    if done:
        mine.undo()
        assert {i: x[:4] for i, x in state(mine).items()} == before


def test_images_that_have_the_same_label_on_both_sides_are_counted():
    mine = [line("0.png", "anomaly"), line("1.png", "normal"), line("2.png", "normal"), line("3.png", None)]
    theirs = [line(f"{k}.png", "normal", "ben") for k in range(3)] + [line("3.png", None, "ben")]
    found = merge(mine, theirs, name="ben", ids=IDS)
    assert (found.n_agree, found.n_labels, len(found.disagreements)) == (2, 0, 1)


def test_one_disagreement_alone_can_be_settled():
    mine = [line(f"{k}.png", "normal") for k in range(3)]
    theirs = [line(f"{k}.png", "anomaly", "ben") for k in range(3)] + [line("9.png", "anomaly", "ben")]
    found, after = merged(mine, theirs, take="theirs", only={"1.png"})
    assert now(after) == {"0.png": "normal", "1.png": "anomaly", "2.png": "normal"}
    assert [image.image_id for image in found.disagreements] == ["1.png"]
    again = merge(after, theirs, name="ben", ids=IDS)
    assert [image.image_id for image in again.disagreements] == ["0.png", "2.png"]
