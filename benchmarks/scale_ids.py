"""How long it takes to open a source of very many ids, and a session on it, and in how much memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from report import peak_memory_mb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 10**6
_SAMPLE = 100_000  # images that are the session's own
_A_FOLDER = 1000  # files

# Folders of files are made one by one, and so are a tenth as large.
KINDS = {"Parquet": 1, "HDF5": 1, "Zarr": 1, "joined": 1, "catalogue": 1, "folder of files": 0.1}


def make(kind: str, n: int, folder: Path) -> None:
    """Write a source of `n` ids that has nothing but ids worth reading."""
    if kind == "folder of files":
        for start in range(0, n, _A_FOLDER):
            inner = folder / f"tile_{start // _A_FOLDER:06d}"
            inner.mkdir()
            for i in range(start, min(start + _A_FOLDER, n)):
                (inner / f"cutout_{i:09d}.png").touch()
    elif kind == "Parquet":
        _table(folder / "many.parquet", 0, n, "image")
    elif kind == "joined":
        _table(folder / "north.parquet", 0, n // 2, "image")
        _table(folder / "south.parquet", n // 2, n, "image")
    elif kind == "HDF5":
        import h5py  # noqa: PLC0415 (as the others, in the child process alone)

        with h5py.File(folder / "many.h5", "w") as file:
            file.create_dataset("images", (n, 8, 8, 3), "u1", chunks=(256, 8, 8, 3))  # no chunk is written
            ids = file.create_dataset("ids", (n,), "S32", chunks=(min(n, 2**16),))
            for start, names in _names(0, n):
                ids[start : start + len(names)] = np.asarray(names.to_pylist(), "S32")
    elif kind == "Zarr":
        import zarr  # noqa: PLC0415

        zarr.create_array(folder / "many.zarr", shape=(n, 8, 8, 3), chunks=(256, 8, 8, 3), dtype="uint8")
        _table(folder / "many_metadata.parquet", 0, n, None)
    else:
        from astropy.io import fits  # noqa: PLC0415

        fits.writeto(folder / "tile.fits", np.ones((4000, 4000), np.float32))
        _table(folder / "objects.parquet", 0, n, "place")


def open_it(kind: str, n: int, folder: Path) -> dict[str, Any]:
    """Open what `make` wrote, and find an id."""
    import amatch_widgets as am  # noqa: PLC0415
    from amatch_widgets.images.source import index_of  # noqa: PLC0415

    name = {"Parquet": "many.parquet", "HDF5": "many.h5", "Zarr": "many.zarr"}.get(kind, "")
    am.open_source(np.zeros((2, 8, 8, 3), np.uint8))  # what is imported does not count
    before = peak_memory_mb()
    started = time.perf_counter()
    source: Any
    if kind == "joined":
        source = am.JoinedSource({part: folder / f"{part}.parquet" for part in ("north", "south")})
    elif kind == "catalogue":
        source = am.CatalogueSource(folder / "objects.parquet", tiles=folder)
    else:
        source = am.open_source(folder / name)
    index = index_of(source)
    opened_s = time.perf_counter() - started
    assert len(source) == n
    wanted = source.ids[7 * n // 10]
    assert index[source.ids[0]] == 0  # pyarrow imports pandas for its first list
    started = time.perf_counter()
    assert index[wanted] == 7 * n // 10
    found_s = time.perf_counter() - started
    peak = peak_memory_mb()
    started = time.perf_counter()
    with am.Session(source, path=folder / "run", sample=min(n, _SAMPLE)):
        session_s = time.perf_counter() - started
    return {
        "source": kind,
        "n": n,
        "open_s": round(opened_s, 2),
        "find_ms": round(1000 * found_s, 2),
        "peak_mb": round(peak),
        "more_mb": round(peak - before),
        "session_s": round(session_s, 2),
        "session_peak_mb": round(peak_memory_mb()),
    }


def _names(start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Give ids in blocks, with the number of the first."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    for first in range(start, stop, _BLOCK):
        numbers = pa.array(np.arange(first, min(first + _BLOCK, stop))).cast(pa.string())
        yield first - start, pc.binary_join_element_wise(pa.scalar("tile_0123/cutout_"), numbers, "")


def _table(path: Path, start: int, stop: int, more: str | None) -> None:
    """Write ids as Parquet, beside images that are null or places on a tile."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    writer = None
    for _, names in _names(start, stop):
        columns: dict[str, Any] = {"id": names}
        if more == "image":
            columns["image"] = pa.nulls(len(names), pa.binary())
        elif more == "place":
            place = np.random.default_rng(len(names)).uniform(100, 3900, (2, len(names)))
            columns |= {"x": place[0], "y": place[1], "tile": pa.array(["tile.fits"]).take([0] * len(names))}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None  # there is a row
    writer.close()
