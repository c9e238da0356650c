"""Very many images: how fast their scores are asked, their ids opened, and images of each format scored.

queries    two cycles of synthetic scores, in the Parquet parts that a scoring writes; then the top page, a
           page far down, filters by score and by id, the histogram, and the top with its ranks before
gallery    pages of the same scores as the gallery asks for them: the first of each order, and others
           (both: in brackets the seconds of all processors, which say more on a machine that is busy)
ids        ten million ids of each kind of source, and the way back from one: seconds and memory (files in
           folders: a tenth, as they are made one by one)
formats    images/s of `score_missing` on files of each format, against the bare model on images in memory,
           in turns; the default network at 64 px
memory     peak memory of a scoring of 10^4, 10^5 and 10^6 images of a Zarr array
cluster    the seconds of a scoring of a Zarr array by this process, and by a Dask cluster of one worker with
           all cores of this machine, in turns
reading    images/s of reading alone, from each format, by 1, 2, 4 and 8 threads

By name alone, as they take long or need a device:

kill       a million tiny images: the process that scores them is killed twice (SIGKILL) and begun again;
           whether each row is there once, and the seconds until it goes on
gpu        on a CUDA device: images/s of each stage by itself (read, decode, stretch, transfer, compute) and
           of the whole, from Zarr and JPEG files at 64 px, and the hours for 10^8 images

    python benchmarks/scale.py --what queries gallery --rows 7 8    # 10^7 and 10^8 rows: 10 minutes, 0.8 GB
    python benchmarks/scale.py --what ids formats memory
    python benchmarks/scale.py --what kill
    python benchmarks/scale.py --what gpu --images 200000
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scale_ids
import scale_kill
import scale_stages
from report import ROOT, peak_memory_mb, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = 48
_LABELLED = 3000
WHAT = ("queries", "gallery", "ids", "formats", "memory", "cluster", "reading")
_BY_NAME = ("kill", "gpu")


def queries(n: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Time each question on `n` rows, asked for the first time; the files stay for the next run."""
    from amatch_widgets.archive.scores import ArchiveScores  # noqa: PLC0415 (in the child process alone)

    started = time.perf_counter()
    parts = _rows(n, folder)
    made_s = time.perf_counter() - started
    asked: dict[str, Callable[[ArchiveScores], object]] = {
        "top page": lambda scores: scores.top(_PAGE),
        "page 1,000": lambda scores: scores.top(_PAGE, offset=999 * _PAGE),
        "filter by score": lambda scores: (
            scores.count(least=0.5, most=0.6),
            scores.top(_PAGE, least=0.5, most=0.6),
        ),
        "filter by id": lambda scores: scores.top(_PAGE, contains="0777"),
        "letters that a tenth has": lambda scores: scores.top(_PAGE, contains=_tenth(n)),
        "histogram": lambda scores: scores.histogram(50),
        "top page with ranks before": lambda scores: scores.rising(_PAGE),
        "48 scores by position": lambda scores: scores.of(range(0, n, n // _PAGE)),
    }
    ArchiveScores(parts).top(1)  # pandas is imported
    seconds = {name: _median(ask, lambda: ArchiveScores(parts), repeats) for name, ask in asked.items()}
    size = sum(path.stat().st_size for path in parts.root.rglob("*.parquet"))
    return {"n": n, "made_s": round(made_s), "bytes_a_row": round(size / n / 2, 2), "seconds": seconds}


def gallery(n: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Time what the gallery asks of `n` rows: each list made anew, with 3,000 labels on the highest."""
    from amatch_widgets.labels import LabelStore  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.session.archive import Archive  # noqa: PLC0415
    from amatch_widgets.session.selection import Filter  # noqa: PLC0415
    from amatch_widgets.widgets.archive_shelf import ArchiveShelf  # noqa: PLC0415

    parts, labels = _rows(n, folder), LabelStore(None)

    def opened() -> Archive:
        return Archive("rows", parts.root, labels)

    archive = opened()
    rows = archive.order("highest").rows(0, _LABELLED)
    labels.set({archive.id_of(row.id): ("anomaly", "normal")[k % 2] for k, row in enumerate(rows)})

    def looked_at(*pages: int, sort: str = "highest", show: str = "unlabelled", **only: Any) -> ArchiveShelf:
        """Return a list of which some pages were on screen."""
        archive = opened()  # it has looked for no text yet
        archive.remember(rows)
        shelf = ArchiveShelf(archive, sort, show, Filter(**only), seed=0)  # type: ignore[arg-type]
        for page in pages:
            shelf.take(page, _PAGE)
        return shelf

    far, tenth = n // _PAGE // 2, _tenth(n)
    # The list, and the page of it that is asked for.
    asked: dict[str, tuple[Callable[[], ArchiveShelf], int]] = {
        "first page": (looked_at, 0),
        "when just opened": (lambda: ArchiveShelf(opened(), "highest", "unlabelled", Filter(), seed=0), 0),
        "next page": (lambda: looked_at(0), 1),
        "page 100": (lambda: looked_at(0), 99),
        "jump to the middle": (lambda: looked_at(show="all"), far),
        "page after it": (lambda: looked_at(far, show="all"), far + 1),
        **{
            how: (lambda how=how: looked_at(sort=how), 0)
            for how in ("lowest", "uncertain", "random", "rising")
        },
        "labelled": (lambda: looked_at(show="labelled"), 0),
        "by score and id": (lambda: looked_at(least=0.2, most=0.9, contains="0777"), 0),
        "letters that a tenth has": (lambda: looked_at(contains=tenth), 0),
        "its next page": (lambda: looked_at(0, contains=tenth), 1),
        "its middle": (lambda: looked_at(0, contains=tenth), far // 10),
        "letters that all have": (lambda: looked_at(contains="CUTOUT"), 0),
    }
    seconds = {
        name: _median(lambda shelf, page=page: shelf.take(page, _PAGE), make, repeats)
        for name, (make, page) in asked.items()
    }
    seconds["search for letters"] = _median(lambda shelf: shelf.seek(tenth, 0), lambda: looked_at(0), repeats)
    return {"n": n, "peak_mb": round(peak_memory_mb()), "seconds": seconds}


def _tenth(n: int) -> str:
    """Return a text with letters that a tenth of `n` ids have: they count up with nine digits."""
    return "OUT_" + "0" * (10 - round(math.log10(n)))


def _rows(n: int, folder: Path) -> Any:
    """Return parts with two cycles of `n` synthetic scores; the files stay for the next run."""
    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415 (in the child process alone)

    parts = Parts.create(folder / f"rows-{n}", fingerprint="synthetic", n_images=n, spec={})
    for number in (1, 2):
        there = {cycle.key: cycle for cycle in parts.cycles()}
        cycle = there.get(f"model {number}") or parts.begin(f"model {number}", "")
        for part in parts.missing(cycle):
            start, stop = parts.bounds(part)
            rng = np.random.default_rng((number, part))
            ids = [f"tile_{i // 5000:05d}/cutout_{i:09d}" for i in range(start, stop)]
            # Most are low and a few are high, as of a survey.
            scores = rng.beta(0.5, 8, stop - start).astype(np.float32)
            parts.write(cycle, part, ids=ids, scores=scores, problems={})
    return parts


def ids(n: int) -> list[dict[str, Any]]:
    """Open a source of `n` ids of each kind; made by one process, opened by another."""
    found = []
    for kind, share in scale_ids.KINDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            _alone(scale_ids.make, kind, int(n * share), Path(scratch))
            found.append(_alone(scale_ids.open_it, kind, int(n * share), Path(scratch)))
        print(found[-1], file=sys.stderr, flush=True)
    return found


def kill(n: int) -> dict[str, Any]:
    """Score tiny images, killed twice."""
    with tempfile.TemporaryDirectory() as scratch:
        return scale_kill.kill(n, Path(scratch), _ranker)


def reading(n: int, rounds: int) -> dict[str, Any]:
    """Read the images of each format by several numbers of threads."""
    import amatch_widgets as am  # noqa: PLC0415 (in the child process alone)

    with tempfile.TemporaryDirectory() as scratch:
        paths = _written(_images(n), Path(scratch))
        return scale_stages.reading({name: am.open_source(path) for name, path in paths.items()}, 64, rounds)


def gpu(n: int, device: str = "cuda:0") -> dict[str, Any]:
    """Measure the stages of a scoring of Zarr, and of JPEG files."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = _written(_images(n), Path(scratch))
        return {
            name: scale_stages.stages(
                paths[name], _ranker(), Path(scratch, f"scores of {name}"), device=device
            )
            for name in ("Zarr", "Zarr, zstd", "JPEG files")
        }


def formats(n: int, rounds: int) -> dict[str, Any]:
    """Score the same images from each format, in turns with the bare model."""
    import amatch_widgets as am  # noqa: PLC0415 (in the child process alone)

    images = _images(n)
    score = _ranker().ready("cpu")
    score(images[:512])  # the precision is chosen, the kernels are ready
    rates: dict[str, list[float]] = {"bare": []}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {name: am.open_source(path) for name, path in _written(images, Path(scratch)).items()}
        for turn in range(rounds):
            started = time.perf_counter()
            for start in range(0, n, 256):
                score(images[start : start + 256])
            rates["bare"].append(n / (time.perf_counter() - started))
            for name, source in sources.items():
                folder = Path(scratch, f"scores-{turn}-{name.replace(' ', '-')}")
                rates.setdefault(name, []).append(n / _score_all(source, score, folder))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    bare = medians["bare"]
    return {
        name: {"images_per_s": round(rate), "reading_share": round(1 - rate / bare, 3)}
        for name, rate in medians.items()
    }


def memory(n: int) -> dict[str, Any]:
    """Score a Zarr array of which no chunk was ever written: it takes no disk, and is read all the same."""
    import zarr  # noqa: PLC0415 (in the child process alone)

    import amatch_widgets as am  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "many.zarr")
        zarr.create_array(path, shape=(n, 32, 32, 3), chunks=(256, 32, 32, 3), dtype="uint8", fill_value=7)
        seconds = _score_all(am.open_source(path), _ranker(32).ready("cpu"), Path(scratch, "scores"), 32)
    return {"n": n, "images_per_s": round(n / seconds), "peak_mb": round(peak_memory_mb())}


def cluster(n: int, rounds: int) -> dict[str, Any]:
    """Score the same images here and on a cluster of this machine's cores, in turns."""
    import os  # noqa: PLC0415 (in the child process alone)

    import zarr  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    import amatch_widgets as am  # noqa: PLC0415
    from amatch_widgets.archive.cluster import score_on_cluster  # noqa: PLC0415
    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415

    ranker = _ranker()
    seconds: dict[str, list[float]] = {"local": [], "cluster": []}
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(n_workers=1, threads_per_worker=os.cpu_count(), dashboard_address=None) as workers,
        Client(workers) as client,
    ):
        path = Path(scratch, "a.zarr")
        images = _images(n)
        array = zarr.create_array(path, shape=images.shape, chunks=(256, *images.shape[1:]), dtype="uint8")
        array[:] = images
        source, score = am.open_source(path), ranker.ready("cpu")
        score(images[:512])
        for turn in range(rounds + 1):  # in the first one the worker gets its model
            here = _score_all(source, score, Path(scratch, f"local-{turn}"))
            parts = Parts.create(
                Path(scratch, f"cluster-{turn}"), fingerprint="x", n_images=n, spec={}, part_rows=2048
            )
            started = time.perf_counter()
            for _ in score_on_cluster(client, source, ranker, parts, parts.begin("k", ""), device="cpu"):
                pass
            if turn:
                seconds["local"].append(here)
                seconds["cluster"].append(time.perf_counter() - started)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = [there / here for here, there in zip(seconds["local"], seconds["cluster"], strict=True)]
    return {
        "n": n,
        **{k: round(v, 2) for k, v in medians.items()},
        "ratio": round(statistics.median(ratios), 3),
    }


def _images(n: int) -> Any:
    """Make galaxies: noise would be decoded more slowly than any real image."""
    import amatch_widgets as am  # noqa: PLC0415 (in the child process alone)

    sky = am.demo.sky(min(n, 2000), seed=0)
    few = np.stack([sky.read(i) for i in range(len(sky))])
    return np.concatenate([few] * (-(-n // len(few))))[:n]


def _ranker(side: int = 64) -> Any:
    from amatch_widgets.archive.ranker import Model, Ranker  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.images.preprocess import Preprocess  # noqa: PLC0415
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415

    name = "tf_efficientnet_lite0"
    deep = Model.of(build_classifier(name, seed=0), name)
    return Ranker(ranked_by="deep", image=Preprocess(size=side), note="", deep=deep)


def _score_all(source: Any, score: Any, folder: Path, side: int = 64) -> float:
    """Score all images; return the seconds."""
    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.archive.run import part_rows_for, score_missing  # noqa: PLC0415
    from amatch_widgets.images.preprocess import Preprocess  # noqa: PLC0415

    n = len(source)
    rows = part_rows_for(n, getattr(source, "chunk", 1))
    started = time.perf_counter()
    parts = Parts.create(folder, fingerprint="x", n_images=n, spec={}, part_rows=rows)
    for _ in score_missing(source, Preprocess(size=side), score, parts, parts.begin("k", "")):
        pass
    return time.perf_counter() - started


def _written(images: Any, folder: Path) -> dict[str, Path]:
    """Write the images in each format; return the paths."""
    import h5py  # noqa: PLC0415 (in the child process alone)
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415
    import zarr  # noqa: PLC0415
    from astropy.io import fits  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    paths = {
        "npy": folder / "a.npy",
        "HDF5": folder / "a.h5",
        "Zarr": folder / "a.zarr",
        "Zarr, zstd": folder / "b.zarr",
        "Parquet, raw": folder / "raw.parquet",
        "Parquet, JPEG": folder / "jpeg.parquet",
        "JPEG files": folder / "jpeg",
        "FITS cube, float32, 3 bands": folder / "a.fits",
        "FITS files, float32": folder / "fits",
    }
    n, height, width, bands = images.shape
    np.save(paths["npy"], images)
    chunks = (256, height, width, bands)
    with h5py.File(paths["HDF5"], "w") as file:
        file.create_dataset("images", data=images, chunks=chunks)
    for name, compressors in (("Zarr", None), ("Zarr, zstd", "auto")):
        array = zarr.create_array(
            paths[name], shape=images.shape, chunks=chunks, dtype="uint8", compressors=compressors
        )
        array[:] = images
    flat = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), height * width * bands)
    raw = pa.table({"id": [f"{i}" for i in range(n)], "image": flat})
    shape = {b"shape": json.dumps([height, width, bands]).encode()}
    raw = raw.replace_schema_metadata(shape)
    pq.write_table(raw, paths["Parquet, raw"], row_group_size=1024)
    paths["JPEG files"].mkdir()
    paths["FITS files, float32"].mkdir()
    encoded = []
    for i, image in enumerate(images):
        file = paths["JPEG files"] / f"{i:06d}.jpg"
        Image.fromarray(image).save(file, quality=90)
        encoded.append(file.read_bytes())
        fits.writeto(paths["FITS files, float32"] / f"{i:06d}.fits", image.transpose(2, 0, 1).astype(">f4"))
    jpeg = pa.table({"id": [f"{i}" for i in range(n)], "image": pa.array(encoded, pa.binary())})
    pq.write_table(jpeg, paths["Parquet, JPEG"], row_group_size=1024)
    fits.writeto(paths["FITS cube, float32, 3 bands"], images.transpose(0, 3, 1, 2).astype(">f4"))
    return paths


def _median(ask: Callable[[Any], object], make: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the seconds, and those of all processors, of asking something that is made anew each time."""
    taken = []
    for _ in range(repeats):
        made = make()
        started, worked = time.perf_counter(), time.process_time()
        ask(made)
        taken.append((time.perf_counter() - started, time.process_time() - worked))
    return round(statistics.median(t for t, _ in taken), 3), round(statistics.median(t for _, t in taken), 3)


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a process of its own, whose peak memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _has_cuda() -> bool:
    import torch  # noqa: PLC0415 (for one of the programs)

    return torch.cuda.is_available()


# What each is called with, and how what it finds is shown.
_MEASURE: dict[str, Callable[[argparse.Namespace], Any]] = {
    "queries": lambda given: [_alone(queries, 10**k, given.folder, given.repeats) for k in given.rows],
    "gallery": lambda given: [_alone(gallery, 10**k, given.folder, given.repeats) for k in given.rows],
    "ids": lambda given: ids(given.ids),
    "formats": lambda given: _alone(formats, given.images, given.repeats),
    "memory": lambda _: [_alone(memory, 10**power) for power in (4, 5, 6)],
    "cluster": lambda given: _alone(cluster, 2 * given.images, given.repeats),
    "reading": lambda given: _alone(reading, given.images, given.repeats),
    "kill": lambda given: kill(given.kill_images),
    "gpu": lambda given: _alone(gpu, given.images),
}
_SHOW: dict[str, Callable[[Any], list[list[Any]]]] = {
    "queries": lambda found: [
        ["rows", "bytes a row and cycle", *found[0]["seconds"]],
        *([f"{r['n']:.0e}", r["bytes_a_row"], *_seconds(r)] for r in found),
    ],
    "gallery": lambda found: [
        ["rows", "peak memory, MB", *found[0]["seconds"]],
        *([f"{r['n']:.0e}", f"{r['peak_mb']:,}", *_seconds(r)] for r in found),
    ],
    "ids": lambda found: [
        ["source", "ids", "opened, s", "an id found, ms", "more memory, MB"],
        *([r["source"], f"{r['n']:.0e}", r["open_s"], r["find_ms"], r["more_mb"]] for r in found),
    ],
    "formats": lambda found: [
        ["images from", "images/s", "share of the time that reading costs"],
        *([name, f"{r['images_per_s']:,}", f"{r['reading_share']:.0%}"] for name, r in found.items()),
    ],
    "memory": lambda found: [
        ["images", "images/s", "peak memory, MB"],
        *([f"{r['n']:.0e}", f"{r['images_per_s']:,}", f"{r['peak_mb']:,}"] for r in found),
    ],
    "reading": lambda found: [
        ["images from", *(f"{threads} threads" for threads in next(iter(found.values())))],
        *([name, *(f"{rate:,}" for rate in rates.values())] for name, rates in found.items()),
    ],
    "gpu": lambda found: [
        ["images from", "device", "stage", "images/s", "hours for 10^8"],
        *(
            [name, r["device"], stage, f"{rate:,}", r["hours_for_1e8"][stage]]
            for name, r in found.items()
            for stage, rate in r["images_per_s"].items()
        ),
    ],
    "cluster": lambda found: [list(found), list(found.values())],
    "kill": lambda found: [list(found), list(found.values())],
}


def _seconds(found: dict[str, Any]) -> list[str]:
    return [f"{seconds:.2f} s ({worked:.2f})" for seconds, worked in found["seconds"].values()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="+", choices=(*WHAT, *_BY_NAME), default=list(WHAT))
    parser.add_argument("--rows", nargs="+", type=int, default=[7], help="powers of ten, for the queries")
    parser.add_argument("--images", type=int, default=6000, help="of each format")
    parser.add_argument("--ids", type=int, default=10**7, help="to open")
    parser.add_argument("--kill-images", type=int, default=10**6, help="of the scoring that is killed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "scale", help="for large files")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if "gpu" in arguments.what and not _has_cuda():
        parser.error("--what gpu measures a CUDA device, and PyTorch sees none here; leave it out")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in arguments.what:
        found[name] = _MEASURE[name](arguments)
        head, *rows = _SHOW[name](found[name])
        for row in (head, ["---"] * len(head), *rows):
            print(f"| {' | '.join(map(str, row))} |", flush=True)
        print()
    if arguments.json:
        print(json.dumps({"benchmark": "scale", **found, **provenance()}))


if __name__ == "__main__":
    main()
