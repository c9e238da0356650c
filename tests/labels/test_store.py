from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amatch_widgets.errors import ConfigError, JournalError, LabelError, StateError
from amatch_widgets.labels import ANOMALY, CLASSES, NORMAL, TEST, TRAIN, Label, LabelStore, journal

HOSTILE = [
    "a b.png",
    "line\nbreak.png",
    "return\r.png",
    "<img src=x onerror=alert(1)>.png",
    "{{ 1 + 1 }}.png",
    'it\'s "quoted".png',
    "back\\slash.png",
    "not-utf8-\udce9.png",
    "\U0001f600 and \u2028.png",
    "x" * 5000,
    "=cmd()|1",
    " ",
]
_PATIENCE_S = 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "labels.jsonl"


def _labels(store):
    return {i: line.label for i, line in store.current().items()}


# ---- what a label is ------------------------------------------------------------------------


def test_a_label_is_kept_with_all_that_was_said(path):
    store = LabelStore(path)
    (line,) = store.set(
        {"a.png": "anomaly"},
        by="me",
        tags=["merger", "blue"],
        note="two cores",
        scores={"a.png": 0.75},
        step=100,
        reason="top: rank 3",
    )
    assert line.tags == ("merger", "blue")
    assert (line.label, line.by, line.note, line.score, line.step, line.reason) == (
        "anomaly",
        "me",
        "two cores",
        0.75,
        100,
        "top: rank 3",
    )
    assert datetime.fromisoformat(line.time).utcoffset() == timedelta(0)
    assert LabelStore(path).get("a.png") == line


def test_anomaly_is_class_one():
    assert CLASSES == (NORMAL, ANOMALY)
    assert CLASSES.index(ANOMALY) == 1


def test_the_current_labels_come_in_order_of_the_last_change():
    store = LabelStore(None)
    store.set({"a": "normal", "b": "normal", "c": "anomaly"})
    store.set({"a": "anomaly"})
    assert list(store.current()) == ["b", "c", "a"]


def test_a_label_that_is_taken_back_is_gone_but_not_forgotten(path):
    store = LabelStore(path)
    store.set({"a": "anomaly"})
    store.set({"a": None})
    for reader in (store, LabelStore(path)):
        assert reader.get("a") is None
        assert "a" not in reader
        assert len(reader) == 0
        assert [line.label for line in reader.history("a")] == ["anomaly", None]


def test_labels_are_counted_by_class():
    store = LabelStore(None)
    assert store.counts() == {"normal": 0, "anomaly": 0}
    store.set({"a": "normal", "b": "normal", "c": "anomaly", "d": None})
    assert store.counts() == {"normal": 2, "anomaly": 1}
    assert repr(store) == "LabelStore(1 anomaly, 2 normal)"


def test_the_version_grows_with_each_change_and_survives_a_restart(path):
    store = LabelStore(path)
    versions = [store.version]
    for labels in ({"a": "anomaly"}, {"a": None, "b": "normal"}, {}):
        store.set(labels)
        versions.append(store.version)
    assert versions == [0, 1, 3, 3]
    assert LabelStore(path).version == 3


def test_a_snapshot_does_not_follow_later_changes():
    store = LabelStore(None)
    store.set({"a": "anomaly"})
    before, history = store.current(), store.history()
    store.set({"b": "normal"})
    assert list(before) == ["a"]
    assert len(history) == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_missing_score_is_written_as_none(path, score):
    store = LabelStore(path)
    store.set({"a": "anomaly"}, scores={"a": score})
    assert LabelStore(path).get("a").score is None


def test_a_store_without_a_path_keeps_labels_in_memory():
    store = LabelStore(None)
    store.set({"a": "anomaly"})
    assert (_labels(store), store.path, store.notice) == ({"a": "anomaly"}, None, "")


# ---- what is refused ------------------------------------------------------------------------


def test_an_unknown_label_is_refused_with_the_nearest_one(path):
    store = LabelStore(path)
    with pytest.raises(LabelError, match=r"'anomly' of 'b'.*and None.*Did you mean 'anomaly'"):
        store.set({"a": "normal", "b": "anomly"})
    assert len(store) == 0
    assert not path.exists()


@pytest.mark.parametrize("image_id", ["", 17, None, b"a.png"])
def test_an_id_that_is_no_text_is_refused(image_id):
    with pytest.raises(LabelError, match="must be a string that is not empty"):
        LabelStore(None).set({image_id: "anomaly"})


def test_a_surrogate_pair_in_two_halves_is_refused_because_it_would_come_back_as_another_id():
    with pytest.raises(LabelError, match="split surrogate pair"):
        LabelStore(None).set({"\ud83d\ude00": "anomaly"})


def test_a_list_instead_of_a_mapping_is_refused():
    with pytest.raises(LabelError, match="give a mapping"):
        LabelStore(None).set(["a"])


def test_one_string_of_tags_is_refused():
    with pytest.raises(LabelError, match=r"give a list of words: \['merger'\]"):
        LabelStore(None).set({"a": "anomaly"}, tags="merger")


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_a_test_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="between 0 and"):
        LabelStore(None, test_share=share)


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'train' and 'test'"):
        LabelStore(None).for_split("validation")


def test_a_closed_store_refuses_labels_and_can_still_be_read(path):
    store = LabelStore(path)
    store.set({"a": "anomaly"})
    store.close()
    store.close()
    with pytest.raises(StateError, match="NOT kept"):
        store.set({"b": "normal"})
    assert _labels(store) == {"a": "anomaly"}
    assert path.read_bytes().count(b"\n") == 1


# ---- the held-out share ---------------------------------------------------------------------


def _label_many(store, label, n, start=0):
    for i in range(start, start + n):
        store.set({f"{label}-{i}": label})
    return [store.get(f"{label}-{i}").split for i in range(start, start + n)]


@pytest.mark.parametrize("label", CLASSES)
def test_the_first_four_of_a_class_train_and_then_one_in_four_is_held_out(label):
    splits = _label_many(LabelStore(None), label, 44)
    assert splits[:4] == [TRAIN] * 4
    assert [splits[i : i + 4].count(TEST) for i in range(4, 44, 4)] == [1] * 10


def test_the_place_in_a_run_of_four_is_not_always_the_same():
    splits = _label_many(LabelStore(None), "normal", 84)
    assert len({splits[i : i + 4].index(TEST) for i in range(4, 84, 4)}) > 1


def test_one_call_splits_like_many_calls():
    many, one = LabelStore(None), LabelStore(None)
    splits = _label_many(many, "anomaly", 20)
    one.set({f"anomaly-{i}": "anomaly" for i in range(20)})
    assert [line.split for line in one.current().values()] == splits


def test_the_split_goes_on_after_a_restart_as_if_there_had_been_none(path):
    straight = _label_many(LabelStore(None), "anomaly", 24)
    store = LabelStore(path)
    first = _label_many(store, "anomaly", 11)
    store.close()
    assert first + _label_many(LabelStore(path), "anomaly", 13, start=11) == straight


def test_an_image_keeps_its_split_when_it_is_relabelled_cleared_or_reopened(path):
    store = LabelStore(path)
    _label_many(store, "normal", 12)
    splits = {i: line.split for i, line in store.current().items()}
    assert TEST in splits.values()
    store.set(dict.fromkeys(splits, None))
    store.set(dict.fromkeys(splits, "anomaly"))
    assert {i: line.split for i, line in store.current().items()} == splits
    reopened = LabelStore(path, test_share=0)
    reopened.set(dict.fromkeys(splits, "normal"))
    assert {i: line.split for i, line in reopened.current().items()} == splits


def test_clearing_an_image_that_never_had_a_label_decides_nothing():
    store = LabelStore(None)
    store.set({f"normal-{i}": None for i in range(44)})
    assert _label_many(store, "normal", 44) == _label_many(LabelStore(None), "normal", 44)


def test_a_share_of_zero_holds_out_nothing():
    assert set(_label_many(LabelStore(None, test_share=0), "normal", 40)) == {TRAIN}


def test_a_share_of_a_half_holds_out_every_other():
    assert _label_many(LabelStore(None, test_share=0.5), "normal", 44)[4:].count(TEST) == 20


def test_the_two_splits_share_the_labels_between_them():
    store = LabelStore(None)
    _label_many(store, "normal", 20)
    _label_many(store, "anomaly", 20)
    train, test = store.for_split("train"), store.for_split("test")
    assert not train.keys() & test.keys()
    assert {**train, **test} == _labels(store)
    assert sorted(test.values()) == ["anomaly"] * 4 + ["normal"] * 4


# ---- the journal: what is read back ---------------------------------------------------------


@pytest.mark.parametrize("image_id", HOSTILE)
def test_a_hostile_name_comes_back_as_it_was(path, image_id):
    LabelStore(path).set({image_id: "anomaly", "b": "normal"}, note=image_id, tags=[image_id], by=image_id)
    line = LabelStore(path).get(image_id)
    assert (line.image_id, line.note, line.tags, line.by) == (image_id, image_id, (image_id,), image_id)


def test_the_journal_is_one_ascii_line_of_json_per_label(path):
    LabelStore(path).set(dict.fromkeys(HOSTILE, "anomaly"), note="naïve ☃")
    lines = path.read_bytes().decode("ascii").splitlines()
    assert [json.loads(line)["id"] for line in lines] == HOSTILE


def test_a_missing_journal_is_an_empty_one_and_opening_it_writes_nothing(path):
    assert len(LabelStore(path)) == 0
    assert not path.parent.exists()


_ODD = st.sampled_from(["odd-\udc80", "\ud800", "\u2028", "\n"])
_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | _ODD
_CALLS = st.lists(st.dictionaries(_IDS, st.sampled_from([ANOMALY, NORMAL, None]), max_size=4), max_size=6)
_quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_quick
@given(calls=_CALLS)
def test_replay_gives_what_memory_had(tmp_path, calls):
    path = tmp_path / "replay.jsonl"
    path.unlink(missing_ok=True)
    store = LabelStore(path)
    for labels in calls:
        store.set(labels, note="ü", by="me")
    store.close()
    again = LabelStore(path)
    assert again.history() == store.history()
    assert list(again.current().items()) == list(store.current().items())
    assert again.version == store.version


@_quick
@given(calls=_CALLS.filter(any), data=st.data())
def test_a_journal_cut_at_any_byte_has_just_the_complete_lines_and_can_be_written_on(tmp_path, calls, data):
    path = tmp_path / "cut.jsonl"
    path.unlink(missing_ok=True)
    store = LabelStore(path)
    for labels in calls:
        store.set(labels)
    store.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    # a line is complete when its object is: the line end may be missing
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    n = sum(end <= cut for end in ends)

    torn = LabelStore(path)
    assert torn.history() == store.history()[:n]
    torn.set({"after": "anomaly"})
    torn.close()
    again = LabelStore(path)
    assert again.history() == torn.history()
    assert again.notice == ""
    assert again.version == n + 1


def _some_lines(path, n=3):
    store = LabelStore(path)
    for i in range(n):
        store.set({f"{i}.png": "anomaly"})
    store.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_torn_last_line_is_left_out_noted_and_cut_away_before_the_next_label(path, caplog):
    lines = _some_lines(path)
    path.write_bytes(b"".join(lines)[:-10])
    store = LabelStore(path)
    assert list(store.current()) == ["0.png", "1.png"]
    assert "last line (3) of labels.jsonl was cut short" in store.notice
    assert "cut short" in caplog.text
    assert path.read_bytes() == b"".join(lines)[:-10], "reading alone changes nothing"
    store.set({"3.png": "normal"})
    assert list(LabelStore(path).current()) == ["0.png", "1.png", "3.png"]


def test_zeros_behind_the_last_line_as_after_a_power_cut_are_a_torn_line(path):
    lines = _some_lines(path)
    path.write_bytes(b"".join(lines) + b"\0" * 100)
    store = LabelStore(path)
    assert len(store) == 3
    store.set({"3.png": "normal"})
    assert b"\0" not in path.read_bytes()
    assert len(LabelStore(path)) == 4


def test_a_last_line_that_only_lacks_its_line_end_is_kept(path):
    lines = _some_lines(path)
    path.write_bytes(b"".join(lines).rstrip(b"\n"))
    store = LabelStore(path)
    assert (len(store), store.notice) == (3, "")
    store.set({"3.png": "normal"})
    assert len(LabelStore(path)) == 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": "1.p\n', "not JSON"),
        (b"\0\0\0\n", "not JSON"),
        (b"[1, 2]\n", "list instead of an object"),
        (b'{"label": "anomaly"}\n', "no 'id'"),
        (b'{"id": "1.png"}\n', "no 'label'"),
        (b'{"id": 7, "label": "anomaly"}\n', "must be a string"),
        (b'{"id": "1.png", "label": "galaxy"}\n', "Unknown label 'galaxy'"),
        (b'{"id": "1.png", "label": "normal", "split": "validation"}\n', "instead of 'train' or 'test'"),
        (b'{"id": "1.png", "label": "normal", "score": "high"}\n', "could not convert"),
        (b'{"id": "1.png", "label": "normal", "tags": 3}\n', "instead of a list"),
        (b'{"id": "1.png", "label": "normal", "by": "\xff"}\n', "not JSON"),
    ],
)
def test_a_damaged_line_in_the_middle_stops_with_file_line_and_cure(path, line, why):
    lines = _some_lines(path)
    path.write_bytes(lines[0] + line + lines[2])
    before = path.read_bytes()
    with pytest.raises(JournalError, match="Line 2 of the label journal") as caught:
        LabelStore(path)
    assert str(path) in str(caught.value)
    assert why in str(caught.value)
    assert "repair or delete line 2" in str(caught.value)
    assert path.read_bytes() == before


def test_a_damaged_line_that_is_whole_is_an_error_even_if_it_is_the_last(path):
    _some_lines(path)
    with path.open("ab") as file:
        file.write(b"not json\n")
    with pytest.raises(JournalError, match="Line 4"):
        LabelStore(path)


def test_fields_of_a_later_version_are_left_aside(path):
    path.parent.mkdir()
    path.write_text('{"id": "a", "label": "anomaly", "box": [1, 2], "split": "test"}\n')
    assert LabelStore(path).get("a") == Label(image_id="a", label="anomaly", split="test")


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_of_an_editor_do_no_harm(path):
    lines = _some_lines(path)
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(line.rstrip() for line in lines) + b"\r\n  ")
    store = LabelStore(path)
    assert len(store) == 3
    store.set({"3.png": "normal"})
    assert len(LabelStore(path)) == 4


def test_a_folder_in_place_of_the_journal_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="cannot be read"):
        LabelStore(tmp_path)


# ---- the journal: when writing fails --------------------------------------------------------


class _Disk:
    """Stands in for `os` in the journal: the disk takes `room` more bytes."""

    def __init__(self, room=None, *, fails=()):
        self.room, self.fails, self.calls = room, set(fails), []

    def __getattr__(self, name):
        return getattr(os, name)

    def _check(self, name):
        self.calls.append(name)
        if name in self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, file, data):
        self._check("write")
        if self.room is None:
            return os.write(file, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(file, data[: self.room])
        self.room -= written
        return written

    def fsync(self, file):
        self._check("fsync")
        os.fsync(file)

    def ftruncate(self, file, length):
        self._check("ftruncate")
        os.ftruncate(file, length)


def _refuses(store, path, match):
    before, version = store.current(), store.version
    with pytest.raises(JournalError, match=match) as caught:
        store.set({"new-1": "anomaly", "new-2": "normal"})
    message = str(caught.value)
    assert message.startswith("NOT kept: the label of 'new-1', 'new-2' could not be written")
    assert str(path) in message
    assert "earlier labels are safe" in message
    assert store.current() == before
    assert store.version == version
    return message


@pytest.mark.parametrize("room", [0, 1, 30, 190])
def test_a_full_disk_keeps_nothing_of_the_call_and_says_so(path, monkeypatch, room):
    store = LabelStore(path)
    store.set({"old": "normal"})
    before = path.read_bytes()
    disk = _Disk(room)
    monkeypatch.setattr(journal, "os", disk)
    _refuses(store, path, "No space left on device")
    assert path.read_bytes() == before
    disk.room = None  # space was freed
    store.set({"new-1": "anomaly"})
    assert _labels(LabelStore(path)) == _labels(store) == {"old": "normal", "new-1": "anomaly"}


def test_a_full_disk_at_the_very_first_label_leaves_an_empty_journal(path, monkeypatch):
    store = LabelStore(path)
    monkeypatch.setattr(journal, "os", _Disk(10))
    _refuses(store, path, "No space left")
    assert path.read_bytes() == b""


def test_a_disk_that_cannot_sync_has_not_kept_the_label(path, monkeypatch):
    store = LabelStore(path)
    store.set({"old": "normal"})
    monkeypatch.setattr(journal, "os", _Disk(fails=["fsync"]))
    _refuses(store, path, "Input/output error")
    assert _labels(LabelStore(path)) == {"old": "normal"}


def test_a_remainder_that_cannot_be_cut_at_once_is_cut_before_the_next_label(path, monkeypatch):
    store = LabelStore(path)
    store.set({"old": "normal"})
    disk = _Disk(30, fails=["ftruncate"])
    monkeypatch.setattr(journal, "os", disk)
    _refuses(store, path, "No space left")
    disk.room = None
    _refuses(store, path, "Input/output error")  # still not: a line behind half a line would be lost
    assert _labels(LabelStore(path)) == {"old": "normal"}
    disk.fails.clear()
    store.set({"new-1": "anomaly"})
    assert _labels(LabelStore(path)) == _labels(store) == {"old": "normal", "new-1": "anomaly"}


def test_an_interrupt_during_a_write_leaves_file_and_memory_as_they_were(path, monkeypatch):
    store = LabelStore(path)
    store.set({"old": "normal"})
    before = path.read_bytes()
    disk = _Disk()
    disk.fsync = lambda file: (_ for _ in ()).throw(KeyboardInterrupt)
    monkeypatch.setattr(journal, "os", disk)
    with pytest.raises(KeyboardInterrupt):
        store.set({"new-1": "anomaly"})
    assert path.read_bytes() == before
    assert _labels(store) == {"old": "normal"}


def test_a_call_with_many_labels_is_one_write_and_one_sync(path, monkeypatch):
    store = LabelStore(path)
    store.set({"old": "normal"})
    disk = _Disk()
    monkeypatch.setattr(journal, "os", disk)
    store.set({f"{i}.png": "normal" for i in range(1000)})
    assert disk.calls == ["write", "fsync"]


def test_a_new_journal_has_its_folder_synced_too(path, monkeypatch):
    disk = _Disk()
    monkeypatch.setattr(journal, "os", disk)
    LabelStore(path).set({"a": "anomaly"})
    assert disk.calls == ["fsync", "write", "fsync"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "labels.jsonl"
    with pytest.raises(JournalError):
        LabelStore(path).set({"a": "anomaly"})


def test_a_read_only_folder_can_be_opened_and_refuses_the_label(path, monkeypatch):
    _some_lines(path)
    disk = _Disk()  # not by permissions: the tests may run as root
    disk.open = lambda *args: (_ for _ in ()).throw(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    monkeypatch.setattr(journal, "os", disk)
    store = LabelStore(path)
    assert len(store) == 3
    _refuses(store, path, "Permission denied")


@pytest.mark.parametrize("what", ["deleted", "replaced", "appended to"])
def test_a_journal_that_another_program_has_touched_is_not_written_on(path, what):
    store = LabelStore(path)
    store.set({"old": "normal"})
    if what == "appended to":
        with path.open("ab") as file:
            file.write(b'{"id": "x", "label": "normal"}\n')
    else:
        data = path.read_bytes()
        path.unlink()
        if what == "replaced":
            path.with_suffix(".tmp").write_bytes(data)
            path.with_suffix(".tmp").replace(path)
    _refuses(store, path, "moved, deleted or changed by another program")


_KILLED = """
import itertools, sys
from pathlib import Path
from amatch_widgets.labels import LabelStore
store = LabelStore(Path(sys.argv[1]))
for i in itertools.count():
    store.set({f"{i}.png": "anomaly"})
    print(i, flush=True)
"""


def test_a_killed_process_has_lost_no_label_that_it_had_acknowledged(path):
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    with child:
        acknowledged = [child.stdout.readline().strip() for _ in range(50)]
        child.kill()
        acknowledged += child.stdout.read().split()
    store = LabelStore(path)
    assert list(store.current())[: len(acknowledged)] == [f"{i}.png" for i in acknowledged]
    assert len(store) - len(acknowledged) in {0, 1}  # one may have been on its way


# ---- threads --------------------------------------------------------------------------------


def test_labels_of_many_threads_are_all_kept_once_and_the_version_never_falls(path):
    store, n_threads, n_each = LabelStore(path), 8, 25
    ready, done, versions = threading.Barrier(n_threads + 1), threading.Event(), []

    def label(thread):
        ready.wait(_PATIENCE_S)
        for i in range(n_each):
            store.set({f"{thread}-{i}": CLASSES[i % 2], f"shared-{i}": CLASSES[thread % 2]})

    def watch():
        ready.wait(_PATIENCE_S)
        while not done.is_set():
            versions.append(store.version)
            n_labelled = len(store.current())
            assert n_labelled <= store.version

    threads = [threading.Thread(target=label, args=(t,)) for t in range(n_threads)]
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    done.set()
    watcher.join(_PATIENCE_S)

    assert versions == sorted(versions)
    assert store.version == 2 * n_threads * n_each
    written = [line.image_id for line in store.history() if not line.image_id.startswith("shared")]
    assert sorted(written) == sorted(f"{t}-{i}" for t in range(n_threads) for i in range(n_each))
    again = LabelStore(path)
    assert again.history() == store.history()
    assert again.current() == store.current()


def test_readers_do_not_wait_for_a_slow_disk(path, monkeypatch):
    store = LabelStore(path)
    store.set({"old": "normal"})
    writing, go_on = threading.Event(), threading.Event()
    disk = _Disk()

    def slow(file):
        writing.set()
        assert go_on.wait(_PATIENCE_S)

    disk.fsync = slow
    monkeypatch.setattr(journal, "os", disk)
    writer = threading.Thread(target=store.set, args=({"new": "anomaly"},))
    writer.start()
    assert writing.wait(_PATIENCE_S)
    assert _labels(store) == {"old": "normal"}  # would hang here
    assert store.history("new") == []
    go_on.set()
    writer.join(_PATIENCE_S)
    assert _labels(store) == {"old": "normal", "new": "anomaly"}
