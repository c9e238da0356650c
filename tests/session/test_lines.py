"""JSON lines that outlive a killed kernel and a full disk."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from amatch_widgets.session._lines import JsonLines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "notes.jsonl"


def read(path):
    found = []
    JsonLines(path).replay(lambda entry: found.append(entry["n"]))
    return found


def filled(path, *numbers):
    lines = JsonLines(path)
    lines.append({"n": n} for n in numbers)
    return lines


def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def test_entries_come_back_in_their_order(path):
    filled(path, 1, "a\n\u2028\udcff", None).append([{"n": 3}])
    assert read(path) == [1, "a\n\u2028\udcff", None, 3]


def test_without_entries_there_is_no_file(path):
    JsonLines(path).append([])
    assert read(path) == []
    assert not path.exists()


@pytest.mark.parametrize("junk", ["{", "", "null", "3", "[" * 100_000, '{"m": 1}', "\udcff"])
def test_a_line_that_cannot_be_read_is_skipped_and_told_in_the_log(path, caplog, junk):
    filled(path, 1)
    with path.open("a", errors="surrogateescape") as file:
        file.write(junk + "\n")
    filled(path, 2)
    assert read(path) == [1, 2]
    assert "A line of " in caplog.text


def test_an_error_that_no_line_is_to_blame_for_is_not_hidden(path):
    filled(path, 1)
    with pytest.raises(ZeroDivisionError):
        JsonLines(path).replay(lambda entry: 1 / 0)


def test_wherever_the_last_line_is_torn_no_other_is_lost(path):
    filled(path, 10, 11)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        lines, before = JsonLines(path), []
        lines.replay(before.append)
        for n in (12, 13):
            lines.append([{"n": n}])
        assert read(path) == [10] * (cut >= first - 1) + [11] * (cut >= len(whole) - 1) + [12, 13]
        assert [entry["n"] for entry in before] == read(path)[:-2]


def test_what_a_full_disk_kept_out_is_written_with_the_next_lines(path, caplog, monkeypatch):
    lines = filled(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        lines.append([{"n": 2}])
        lines.append([{"n": 3}])
    assert "The notes cannot be written" in caplog.text
    assert read(path) == [1]
    lines.append([{"n": 4}])
    assert read(path) == [1, 2, 3, 4]
    lines.append([{"n": 5}])
    assert read(path) == [1, 2, 3, 4, 5]


def test_what_was_half_written_on_a_full_disk_is_written_again(path, monkeypatch):
    lines, opened = filled(path, 1), Path.open

    class Full:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, text):
            self._file.write(text[:-4])
            full()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *a, **k: Full(opened(path, *a, **k)))
        lines.append({"n": n} for n in (2, 3))
    lines.append([{"n": 4}])
    assert read(path) == [1, 2, 2, 3, 4]


def test_a_file_that_cannot_be_read_is_told_in_the_log(path, caplog):
    path.mkdir()
    with caplog.at_level(logging.ERROR):
        assert read(path) == []
    assert "The notes cannot be read" in caplog.text
