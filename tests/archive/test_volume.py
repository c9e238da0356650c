"""A volume that disappears while it is scored: nothing that was scored is lost, and a rerun finishes."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.run import score_missing
from amatch_widgets.errors import SourceError
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.source import open_source
from tests.archive.helper import rows

N, ROWS, CHUNK = 240, 20, 10
PREPARE = Preprocess(size=8, channels=1)


def folder(path, images):
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i:03d}.png")
    return path


def hdf5(path, images):
    with pytest.importorskip("h5py").File(path / "a.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(CHUNK, 8, 8))
    return path / "a.h5"


def zarr(path, images):
    array = pytest.importorskip("zarr").create_array(
        path / "a.zarr", shape=images.shape, chunks=(CHUNK, 8, 8), dtype="uint8"
    )
    array[:] = images
    return path / "a.zarr"


def parquet(path, images):
    flat = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64)
    table = pa.table({"id": [f"{i:03d}" for i in range(N)], "image": flat})
    pq.write_table(table, path / "a.parquet", row_group_size=CHUNK)
    return path / "a.parquet"


def fits_cube(path, images):
    pytest.importorskip("astropy.io.fits").writeto(path / "a.fits", images)
    return path / "a.fits"


@pytest.fixture(params=[folder, hdf5, zarr, parquet, fits_cube])
def path(request, tmp_path):
    """A container of images that hold their number, on a volume of its own."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None], (N, 8, 8)).copy()
    volume = tmp_path / "volume"
    if request.param is not folder:
        volume.mkdir()
    return request.param(volume, images)


def vanish(volume, kept):
    volume.rename(kept)


def truncate(volume, kept):
    """Cut each file to its half, in place: those who have it open see that, too."""
    shutil.copytree(volume, kept)
    for file in volume.rglob("*"):
        if file.is_file():
            with file.open("r+b") as opened:
                opened.truncate(file.stat().st_size // 2)


def score(images):
    return images[:, 0, 0, 0].astype(np.float32)


def ends(run):
    """Whether a run ends before its end, in words that say what to do."""
    try:
        list(run)
    except SourceError as error:
        return "They are left for the next run" in str(error)
    return False


@pytest.mark.parametrize("harm", [vanish, truncate])
def test_what_was_scored_stays_and_a_rerun_finishes_when_the_volume_is_back(path, harm, tmp_path):
    volume, kept = tmp_path / "volume", tmp_path / "kept"
    parts = Parts.create(tmp_path / "scores", fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle, source = parts.begin("k", ""), open_source(path)
    run = score_missing(source, PREPARE, score, parts, cycle, batch_size=5, threads=2)
    while len(parts.done(cycle)) < 3:
        next(run)
    before = rows(parts, cycle)
    harm(volume, kept)
    ended = ends(run)
    assert ended or parts.missing(cycle) == []
    found = {row["index"]: row for row in rows(parts, cycle)}
    assert all(found[row["index"]] == row for row in before)
    problems = [row["problem"] for row in found.values() if row["problem"]]
    assert not (ended and problems)
    # Who has a file open goes on reading it under its new name; all others notice.
    assert ended or problems or (harm is vanish and path.name == "a.h5")

    if volume.exists():
        shutil.rmtree(volume)
    kept.rename(volume)
    list(score_missing(open_source(path), PREPARE, score, parts, cycle))
    whole = rows(parts, cycle)
    assert [row["index"] for row in whole] == list(range(N))
    for row in whole:
        assert row["problem"] if row["score"] is None else row["score"] == row["index"]
    if ended:
        assert not any(row["problem"] for row in whole)


def test_the_same_source_reads_on_when_the_volume_is_back(path, tmp_path):
    volume = tmp_path / "volume"
    parts = Parts.create(tmp_path / "scores", fingerprint="ab", n_images=N, spec={}, part_rows=ROWS)
    cycle, source = parts.begin("k", ""), open_source(path)
    volume.rename(tmp_path / "kept")
    ended = ends(score_missing(source, PREPARE, score, parts, cycle))
    assert parts.done(cycle) == [] if ended else parts.missing(cycle) == []
    (tmp_path / "kept").rename(volume)
    list(score_missing(source, PREPARE, score, parts, cycle))
    assert [row["score"] for row in rows(parts, cycle)] == list(range(N))
