"""Scores in a folder, in an object store, and behind any other URL are kept alike."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.scores import ArchiveScores
from amatch_widgets.errors import WorkspaceError
from amatch_widgets.images import server
from amatch_widgets.images.remote import Remote
from tests.archive.helper import rows

N, ROWS = 25, 10


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Ask a server that does not answer again at once, and always."""
    monkeypatch.setattr(server, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(server, "_GONE_S", 0.0)


@pytest.fixture(params=["a folder", "an object store", "another file system"])
def place(request, tmp_path):
    if request.param == "a folder":
        return tmp_path / "x"
    if request.param == "another file system":
        return Remote(f"file://{tmp_path}/x")
    return request.getfixturevalue("store")


@pytest.fixture
def store(object_store):
    import s3fs  # noqa: PLC0415 - takes a second

    files = s3fs.S3FileSystem(**object_store)
    files.mkdir("scores")
    yield Remote("s3://scores/of an archive", storage_options=object_store)
    files.rm("scores", recursive=True)


def create(place):
    return Parts.create(place, fingerprint="ab", n_images=N, spec={"kind": "npy"}, part_rows=ROWS)


def fill(parts, cycle, part, value=0.5):
    start, stop = parts.bounds(part)
    scores = np.full(stop - start, value, np.float32)
    scores[2] = np.nan
    ids = [f"image {i}" for i in range(start, stop)]
    parts.write(cycle, part, ids=ids, scores=scores, problems={start + 2: "torn"})


def test_what_many_write_is_there_once_wherever_it_lies(place):
    parts = create(place)
    cycle = parts.begin("k1", "one", "float32")
    assert (parts.done(cycle), parts.first(cycle), parts.files(cycle)) == ([], None, [])
    copy = pickle.loads(pickle.dumps(parts))
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda part: fill(copy, cycle, part % 3, part % 3 / 4), range(6)))
    found = rows(parts, cycle)
    assert [row["index"] for row in found] == list(range(N))
    assert [row["problem"] for row in found].count("torn") == parts.n_problems(cycle) == 3
    assert parts.highest(cycle, 4).tolist() == [20, 21, 23, 24]
    again = Parts.open(place)
    assert (again.n_images, again.part_rows, again.source()) == (N, ROWS, ("ab", {"kind": "npy"}))
    assert (again.cycles(), again.missing(cycle), rows(again, cycle)) == ([cycle], [], found)
    with pytest.raises(WorkspaceError, match="other images: 25"):
        Parts.create(place, fingerprint="cd", n_images=N, spec={})


def test_what_is_there_can_be_asked_while_more_comes(place):
    parts = create(place)
    fill(parts, first := parts.begin("k1", "one"), 0)
    scores = ArchiveScores(parts)
    assert (scores.count(), scores.is_complete) == (9, False)
    fill(parts, first, 1, 0.75)
    assert (scores.count(), scores.top(1)["id"].tolist()) == (18, ["image 10"])
    assert scores.top(9, contains="GE 1")["index"].tolist() == [10, 11, 13, 14, 15, 16, 17, 18, 19]
    second = parts.begin("k2", "two")
    parts.write_first(second, np.array([3, 14]), ["image 3", "image 14"], np.array([0.9, 0.8], np.float32))
    assert ArchiveScores(parts).top(5)["index"].tolist() == [3, 14]
    fill(parts, second, 0, 0.1)
    assert ArchiveScores(parts).top(2)["index"].tolist() == [14, 0]


def test_a_file_that_was_written_anew_is_fetched_anew(store):
    parts = create(store)
    fill(parts, cycle := parts.begin("k1", "one"), 0, 0.25)
    assert rows(parts, cycle)[0]["score"] == 0.25
    fill(parts, cycle, 0, 0.75)
    assert rows(parts, cycle)[0]["score"] == rows(Parts.open(store), cycle)[0]["score"] == 0.75


def test_what_was_fetched_once_is_read_from_this_disk(store, monkeypatch):
    parts = create(store)
    fill(parts, cycle := parts.begin("k1", "one"), 0)
    (kept,) = parts.files(cycle)
    monkeypatch.setattr(Remote, "fetch", lambda _: pytest.fail("it was fetched once more"))
    assert pickle.loads(pickle.dumps(parts)).files(cycle) == [kept]


def test_a_half_written_file_is_no_part(tmp_path):
    parts = create(Remote(f"file://{tmp_path}/x"))
    cycle = parts.begin("k1", "one")
    (tmp_path / "x" / cycle.folder / "part-00001.parquet.1f.tmp").write_bytes(b"half")
    assert parts.done(cycle) == []


def test_what_cannot_be_written_or_read_is_said_where(store, object_store, tmp_path):
    with pytest.raises(WorkspaceError, match=r"'s3://nobody/x/archive.json' cannot be written: it is not th"):
        create(Remote("s3://nobody/x", storage_options=object_store))
    with pytest.raises(WorkspaceError, match=r"no file 's3://scores/of an archive/archive.json'"):
        Parts.open(store)
    parts = create(store)
    fill(parts, cycle := parts.begin("k1", "one"), 0)
    gone = Remote("s3://scores/x", storage_options={**object_store, "endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(WorkspaceError, match=r"'s3://scores/x/archive.json' cannot be read: the server does"):
        Parts.open(gone)
    with pytest.raises(WorkspaceError, match=r"part-00002.parquet is not there any more"):
        parts.paths(cycle, [0, 2])
