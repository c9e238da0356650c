"""Vectors of an archive's images on disk: whole rows only, whenever the process dies."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from amatch_widgets.archive.vectors import VectorFile
from amatch_widgets.errors import WorkspaceError

N, D = 1000, 3
KEY = {"archive": "ab", "space": "cd"}


def some(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.permutation(N)[:n], rng.normal(size=(n, D)).astype(np.float16)


def file(*roots, key=KEY):
    return VectorFile(roots, key, n_images=N, dims=D)


@pytest.fixture
def folder(tmp_path):
    """Of a file with the first 20 of `some(30)`."""
    indices, vectors = some(30)
    with file(tmp_path).adding(20) as add:
        add(indices[:12], vectors[:12])
        add(indices[12:20], vectors[12:20])
    (folder,) = tmp_path.iterdir()
    return folder


def check(found, n):
    indices, vectors = some(30)
    assert found.indices.tolist() == indices[:n].tolist()
    np.testing.assert_array_equal(found.vectors, vectors[:n])


def test_what_was_added_is_read_and_added_to(folder):
    made = file(folder.parent)
    before = made.read()
    check(before, 20)
    indices, vectors = some(30)
    with made.adding(10) as add:
        add(indices[20:25], vectors[20:25])
        check(made.read(), 25)  # meanwhile, too
        add(indices[25:], vectors[25:])
    check(made.read(), 30)
    check(before, 20)


def test_rows_are_found_by_the_positions_of_their_images(folder):
    found, indices = file(folder.parent).read(), some(30)[0]
    assert found.rows(indices[[3, 25, 19]]).tolist() == [3, -1, 19]
    assert file(folder.parent / "empty").read().rows([1, 2]).tolist() == [-1, -1]


@pytest.mark.parametrize(("name", "n_bytes", "n"), [("indices.i64", 8 * 15 + 5, 15), ("vectors.f16", 85, 14)])
def test_a_row_that_was_cut_off_is_as_if_it_had_never_been(folder, name, n_bytes, n):
    with (folder / name).open("r+b") as cut:
        cut.truncate(n_bytes)
    made = file(folder.parent)
    check(made.read(), n)
    indices, vectors = some(30)
    with made.adding(30 - n) as add:
        add(indices[n:], vectors[n:])
    check(made.read(), 30)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("indices.i64", np.zeros(20, "<i8").tobytes()),
        ("indices.i64", np.arange(990, 1010, dtype="<i8").tobytes()),
        ("key.json", b"{"),
        ("key.json", b'{"archive": "ab", "space": "another"}'),
    ],
)
def test_what_makes_no_sense_is_made_anew(folder, name, content):
    (folder / name).write_bytes(content)
    made = file(folder.parent)
    assert len(made.read()) == 0
    indices, vectors = some(30)
    with made.adding(30) as add:
        add(indices, vectors)
    check(made.read(), 30)


def test_another_key_is_another_file(folder):
    assert len(file(folder.parent, key={**KEY, "space": "ef"}).read()) == 0


def test_an_error_keeps_what_was_added_and_lets_others_add(folder):
    made, (indices, vectors) = file(folder.parent), some(30)

    def fail():
        with made.adding(5) as add:
            add(indices[20:25], vectors[20:25])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with made.adding(5) as add:
        add(indices[25:], vectors[25:])
    check(made.read(), 30)


def test_two_do_not_add_at_once(folder):
    made = file(folder.parent)
    with made.adding(1), pytest.raises(WorkspaceError, match="Another session is adding"), made.adding(1):
        pass


def test_wrong_vectors_are_refused_and_nothing_is_added(folder):
    made, (indices, vectors) = file(folder.parent), some(30)
    bad = vectors[20:22].copy()
    bad[1, 2] = np.inf
    with made.adding(9) as add:
        for rows in (bad, vectors[20:21], vectors[20:22, :2]):
            with pytest.raises(ValueError, match="2 images and vectors"):
                add(indices[20:22], rows)
    check(made.read(), 20)


def test_it_lies_where_it_can_be_kept_and_is_found_there(tmp_path, monkeypatch):
    blocked = tmp_path / "a file"
    blocked.touch()
    made, (indices, vectors) = file(blocked, tmp_path / "second"), some(30)
    with made.adding(30) as add:
        add(indices, vectors)
    check(made.read(), 30)
    check(file(tmp_path / "third", tmp_path / "second").read(), 30)
    with file(tmp_path / "third", tmp_path / "second").adding(1):
        assert not (tmp_path / "third").exists()  # it is added to where it is
    few = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: few)
    with pytest.raises(WorkspaceError, match=r"cannot be kept in .*140 bytes are needed"), made.adding(10):
        pass


def test_a_full_disk_is_told_and_what_was_added_before_stays(folder, monkeypatch):
    made, (indices, vectors) = file(folder.parent), some(30)

    def full(out, offset, data):
        out.seek(offset)
        out.write(data.reshape(-1).data[:7])
        raise OSError(28, "No space left on device")

    with made.adding(10) as add:
        add(indices[20:25], vectors[20:25])
        with monkeypatch.context() as patch:
            patch.setattr("amatch_widgets.archive.vectors.write_at", full)
            with pytest.raises(WorkspaceError, match="No space left on device"):
                add(indices[25:], vectors[25:])
    check(made.read(), 25)
    with made.adding(5) as add:
        add(indices[25:], vectors[25:])
    check(made.read(), 30)
