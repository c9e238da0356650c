"""The bounded cache on disk: what it keeps, what goes, and several processes at once."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from amatch_widgets.images.disk_cache import DiskCache

PAGE = 4096


def key(i):
    return f"{i:08x}"[::-1]  # so that the first two digits differ


def items(folder):
    return [path for path in folder.glob("??/*") if path.is_file()]


def taken(folder):
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in items(folder))


def age(folder, which, seconds):
    (path,) = folder.glob(f"??/{which}")
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_what_was_put_is_found_again_by_another_process_too(tmp_path):
    DiskCache(tmp_path / "c", 10 * PAGE).put(key(1), b"abc")
    DiskCache(tmp_path / "c", 10 * PAGE).put(key(2), b"")
    cache = DiskCache(tmp_path / "c", 10 * PAGE)
    assert cache.get(key(1)) == b"abc"
    assert cache.get(key(2)) == b""
    assert cache.get(key(3)) is None


def test_an_empty_cache_makes_no_folder(tmp_path):
    assert DiskCache(tmp_path / "c", PAGE).get(key(1)) is None
    assert not (tmp_path / "c").exists()


def test_only_its_owner_may_look_at_it(tmp_path):
    DiskCache(tmp_path / "c", PAGE).put(key(1), b"abc")
    assert (tmp_path / "c").stat().st_mode & 0o077 == 0


def test_it_stays_below_its_limit(tmp_path):
    cache = DiskCache(tmp_path, 10 * PAGE)
    for i in range(50):
        cache.put(key(i), bytes(1000 * (i % 9)))
        assert taken(tmp_path) <= 10 * PAGE
    assert len(items(tmp_path)) >= 3


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = DiskCache(tmp_path, 4 * PAGE)
    for i in range(4):
        cache.put(key(i), b"x")
        age(tmp_path, key(i), 100 - i)
    assert cache.get(key(0)) == b"x"  # used now
    cache.put(key(4), b"x")
    assert [i for i in range(5) if cache.get(key(i)) is not None] == [0, 2, 3, 4]


def test_an_item_larger_than_the_limit_is_not_kept_and_pushes_nothing_out(tmp_path):
    cache = DiskCache(tmp_path, 2 * PAGE)
    cache.put(key(1), b"small")
    cache.put(key(2), bytes(2 * PAGE))
    assert cache.get(key(1)) == b"small"
    assert cache.get(key(2)) is None


@pytest.mark.parametrize("content", [b"", b"abc", bytes(100)])
def test_a_damaged_item_is_not_given_and_goes(tmp_path, content):
    cache = DiskCache(tmp_path, 10 * PAGE)
    cache.put(key(1), b"abc")
    (path,) = items(tmp_path)
    path.write_bytes(content)
    assert cache.get(key(1)) is None
    assert not items(tmp_path)


@pytest.mark.parametrize("content", [None, "", "nonsense" * 5])
def test_a_sum_that_was_lost_is_counted_again(tmp_path, content):
    cache = DiskCache(tmp_path, 4 * PAGE)
    for i in range(4):
        cache.put(key(i), b"x")
    (tmp_path / "total").unlink()
    if content is not None:
        (tmp_path / "total").write_text(content)
    for i in range(4, 8):
        cache.put(key(i), b"x")
        assert taken(tmp_path) <= 4 * PAGE


def test_a_file_that_a_dead_process_left_goes_first(tmp_path):
    cache = DiskCache(tmp_path, 4 * PAGE)
    for i in range(3):
        cache.put(key(i), b"x")
    left = items(tmp_path)[0].with_name(".left.tmp")
    left.write_bytes(bytes(PAGE))
    os.utime(left, (0, 0))
    (tmp_path / "total").unlink()
    cache.put(key(3), b"x")
    assert not left.exists()
    assert all(cache.get(key(i)) == b"x" for i in range(4))


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    cache = DiskCache(tmp_path / "file" / "c", 10 * PAGE)
    cache.put(key(1), b"abc")
    assert cache.get(key(1)) is None


def fill(folder, start):
    """Put fifty items; return the most that was there at any time."""
    cache = DiskCache(folder, 20 * PAGE)
    most = 0
    for i in range(start, start + 50):
        cache.put(key(i), bytes([i % 251]) * 3000)
        found = cache.get(key(i))
        assert found is None or found == bytes([i % 251]) * 3000
        most = max(most, sum(-(-size // PAGE) * PAGE for size in sizes(folder)))
    return most


def sizes(folder):
    for path in items(folder):
        try:
            yield path.stat().st_size
        except FileNotFoundError:  # another process made room
            continue


def test_several_processes_together_stay_below_the_limit(tmp_path):
    with ProcessPoolExecutor(4, get_context("fork")) as executor:
        most = list(executor.map(fill, [tmp_path] * 4, range(0, 200, 50), timeout=60))
    assert max(most) <= 20 * PAGE
    assert taken(tmp_path) <= 20 * PAGE
    assert len(items(tmp_path)) >= 15
