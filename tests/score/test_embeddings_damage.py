"""Damaged vectors are made anew with a notice; what was cut off at its beginning is no damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amatch_widgets.score import embedding_files as files
from tests.score.helper import ARRAYS, KEY, D, N, begin, fill, made_before, vectors_of


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


DAMAGES = [
    (name, damage)
    for name in ("key.json", "projection.npz", "vectors.f16", "state.u8")
    for damage in (cut, lengthen, empty, garble, Path.unlink)
    # Other numbers are vectors too, and behind its end a zip file may have anything.
    if (name, damage) not in {("vectors.f16", garble), ("projection.npz", lengthen)}
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
@pytest.mark.parametrize("n_done", [20, N])
def test_a_damaged_store_is_made_anew_with_a_notice(opened, name, damage, n_done):
    folder = made_before(opened, n_done=n_done)
    damage(folder / name)
    store = opened()
    assert store.folder == folder
    assert f"{str(folder)!r} were damaged (" in store.notice
    assert "made anew" in store.notice
    assert "\n" not in store.notice
    assert (store.n_done, store.dims, store.projection) == (0, 0, None)
    fill(begin(store, D + 1))
    store.close()
    again = opened()
    assert (again.notice, again.is_complete, again.dims) == ("", True, D + 1)
    np.testing.assert_array_equal(again.vectors, vectors_of(np.arange(N), D + 1))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"null", b"{}", b"\xff", b"[" * 100_000])
def test_a_key_that_does_not_match_is_damage(opened, content):
    folder = made_before(opened)
    (folder / "key.json").write_bytes(content)
    store = opened()
    assert "key.json" in store.notice
    assert store.n_done == 0


def test_each_flipped_bit_of_a_projection_is_found_or_harmless(opened):
    store = opened()
    store.set_projection({"axes": ARRAYS["mean"]}, D)
    store.close()
    path = store.folder / "projection.npz"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    n_found = 0
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            contents = files.read(store.folder, files.canonical(KEY), N)
        except files.DAMAGE:
            n_found += 1
            continue
        assert contents.dims == D
        assert list(contents.projection) == ["axes"]
        np.testing.assert_array_equal(contents.projection["axes"], ARRAYS["mean"])
    assert n_found > len(sound) / 2


def test_a_state_that_nobody_wrote_is_damage(opened):
    folder = made_before(opened)
    (folder / "state.u8").write_bytes(b"\1" * (N - 1) + b"\3")
    assert "state.u8" in opened().notice


def test_what_reads_a_damaged_store_goes_on_reading(opened):
    fill(begin(opened())).close()
    reader = opened()
    seen = reader.vectors
    empty(reader.folder / "state.u8")
    anew = begin(opened())
    assert anew.notice
    assert not anew.vectors.any()
    np.testing.assert_array_equal(seen, vectors_of(np.arange(N)))  # of the file that was


@pytest.mark.parametrize("left", [[], ["state.u8"], ["key.json"], ["state.u8", ".key.json.tmp"]])
def test_a_store_that_was_cut_off_at_its_beginning_is_no_loss(opened, left):
    store = opened()
    store.close()
    for path in store.folder.iterdir():
        if path.name not in left:
            path.unlink()
    for name in left:
        (store.folder / name).touch()
    store = opened()
    assert store.notice == ""
    assert fill(begin(store)).is_complete


def test_room_without_a_projection_is_made_again(opened):
    store = opened()
    store.mark_unreadable([3])
    store.close()
    (store.folder / "vectors.f16").write_bytes(b"xyz")  # killed before the projection had its name
    (store.folder / ".projection.npz.tmp").write_bytes(b"xyz")
    store = opened()
    assert (store.notice, store.n_unreadable) == ("", 1)
    fill(begin(store))
    assert not store.vectors[3].any()
    assert store.is_complete
