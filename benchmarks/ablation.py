"""What each choice of the instant tier brings: one change at a time, on the cases of ../shared/bench.

Each variant is the product's own `Embedder`, `Projection` and `InstantHead` with one choice undone, in both
modes of ../shared/bench/PROTOCOL.md, which are played in memory on the vectors that a session would
make. Printed are the differences to the default, in pairs of the same case and seed.

    OMP_NUM_THREADS=1 python benchmarks/ablation.py     # one core; goes on where it was cut off
    python benchmarks/ablation.py --tables              # run nothing: print from the result file

Raw features are made once for each kind of image, side and number of views, and kept beside the result
file (0.6 GB). Where hunt.py's result file is, it is said how near the default comes to it: on the same
number of threads it is the same, as low precision rounds by how the work is cut.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from hunt import CASES, MODES, Case, append, read
from probe import SEEDS, Play, cells_of, pairs, rows_of, stream
from report import ROOT, provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from amatch_widgets.query.head import InstantHead

    Records = list[dict[str, Any]]
    Feed = tuple[int, int]  # side in pixels, number of views

DEFAULT = "default"
KINDS = {"galaxies": CASES[:2], "photographs": CASES[2:]}
_FEEDS = {"galaxyzoo1": (128, 4), "miniimagenet": (192, 1)}
_BOTH_SPACES = (0, 1)  # "final" and "late"
_STRENGTHS = (100.0, 30.0, 10.0, 3.0)  # inverse ones, of the regression; the first is the default's
_FOLDS = 10  # of the cross-validation, as in the package
_HEAD, _EVIDENCE = "amatch_widgets.query.head", "amatch_widgets.query._evidence"


@dataclass(frozen=True)
class Variant:
    """One change against the default.

    `feeds` are by folder, `replaced` are attributes of modules, `class_` makes the head's class.
    """

    feeds: dict[str, Feed] = field(default_factory=dict)
    spaces: tuple[int, ...] = _BOTH_SPACES
    replaced: dict[str, Any] = field(default_factory=dict)
    class_: Callable[[], type[InstantHead]] | None = None


def regression_alone() -> type[InstantHead]:
    from amatch_widgets.query._evidence import regression  # noqa: PLC0415 (imports scikit-learn)
    from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (as above)

    class RegressionAlone(InstantHead):
        def _direction(self, known: Any, weights: Any, pool: Any) -> Any:  # noqa: ARG002 (as the original's)
            return regression(known)

    return RegressionAlone


def no_regression(known: Any) -> Any:
    return np.zeros(known.anomalies.shape[1], np.float32)


def strength_by_cross_validation() -> type[InstantHead]:
    """The regression's strength chosen for each fit: that by which left-out anomalies rank highest."""
    from amatch_widgets.query._evidence import Labelled, regression  # noqa: PLC0415 (imports scikit-learn)
    from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (as above)

    class StrengthByCrossValidation(InstantHead):
        def _direction(self, known: Labelled, weights: Any, pool: Any) -> Any:
            best = min(_STRENGTHS, key=lambda strength: self._left_out_rank(known, strength))
            with patch(f"{_EVIDENCE}._INVERSE_PENALTY", best):
                return super()._direction(known, weights, pool)

        def _left_out_rank(self, known: Labelled, strength: float) -> float:
            """Return the mean log-rank in the pool of anomalies that the regression was not shown."""
            n_folds = min(_FOLDS, len(known.anomalies))
            if n_folds < 2 or not len(known.others):
                return 0.0
            of_anomalies, of_normals = (
                np.arange(len(group)) % n_folds for group in (known.anomalies, known.normals)
            )
            ranks = []
            with patch(f"{_EVIDENCE}._INVERSE_PENALTY", strength):
                for k in range(n_folds):
                    shown = (known.anomalies[of_anomalies != k], known.normals[of_normals != k])
                    direction = regression(Labelled(*shown, known.others))
                    pool = np.sort(known.others @ direction)
                    above = len(pool) - np.searchsorted(pool, known.anomalies[of_anomalies == k] @ direction)
                    ranks += np.log((1 + above) / (1 + len(pool))).tolist()
            return float(np.mean(ranks))

        def _expected(self, known: Any, weights: Any, pool: Any, along: Any) -> tuple[float, float]:  # noqa: ARG002
            # It scales the scores and does not order them: not worth ten times ten regressions.
            return float(along.mean()), float(along.mean() + along.std())

    return StrengthByCrossValidation


VARIANTS = {
    DEFAULT: Variant(),
    "galaxies at 192 px": Variant(feeds={"galaxyzoo1": (192, 4)}),
    "galaxies in 1 view": Variant(feeds={"galaxyzoo1": (128, 1)}),
    "photographs at 128 px": Variant(feeds={"miniimagenet": (128, 1)}),
    "space final alone": Variant(spaces=(0,)),
    "space late alone": Variant(spaces=(1,)),
    "spaces weighed evenly": Variant(replaced={f"{_EVIDENCE}._SHARPNESS": 0.0}),
    "prototypes alone": Variant(replaced={f"{_HEAD}.regression": no_regression}),
    "regression alone": Variant(class_=regression_alone),
    "strength by cross-validation": Variant(class_=strength_by_cross_validation),
    "no pool in the regression": Variant(replaced={f"{_EVIDENCE}._WEAK": 0}),
    "no columns held back": Variant(replaced={f"{_HEAD}._HELD_BACK": 0.0}),
}


# ---- runs -----------------------------------------------------------------------------------------


class Vectors:
    """The vectors of a case, as a session would make them."""

    def __init__(self, case: Case, feed: Feed, features: Path) -> None:
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

        path = features / f"raw-{case.folder.parent.name}-{feed[0]}px-{feed[1]}.npz"
        if not path.exists():
            embed(case.folder, feed, path)
        with np.load(path) as kept:
            raw, ends, self.precision = kept["raw"][rows_of(case)], kept["ends"], str(kept["precision"])
            blocks = [
                (str(name), slice(a, b)) for name, a, b in zip(kept["names"], [0, *ends], ends, strict=False)
            ]
        # What is drawn by a session with seed 0: the images that are turned, then the projection's.
        rng = np.random.default_rng(0)
        rng.choice(len(raw), min(len(raw), 256), replace=False)
        sample = np.sort(rng.choice(len(raw), min(len(raw), 4096), replace=False))
        projection = Projection.fit(raw[sample], blocks, seed=0)
        self._all, self._spaces = projection.apply(raw), projection.spaces

    def of(self, spaces: tuple[int, ...]) -> tuple[NDArray[np.float16], list[slice]]:
        """Return the vectors in some of the spaces, side by side, and the places of these."""
        parts = [self._all[:, self._spaces[i]] for i in spaces]
        ends = np.cumsum([part.shape[1] for part in parts]).tolist()
        return np.concatenate(parts, 1), [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def embed(folder: Path, feed: Feed, path: Path) -> None:
    """Write the raw features of all images of a folder."""
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)
    from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415 (imports torch)

    started = time.perf_counter()
    embedder = Embedder(build_classifier("tf_efficientnet_lite0"), side=feed[0], n_views=feed[1])
    raw = np.concatenate([embedder.raw(images) for images in stream(folder)])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    names, ends = zip(*((name, columns.stop) for name, columns in embedder.blocks), strict=True)
    np.savez(part, raw=raw, names=names, ends=ends, precision=embedder.precision)
    part.rename(path)
    print(f"{path.name}: {time.perf_counter() - started:.0f} s, {embedder.precision}", file=sys.stderr)


def run(vectors: Vectors, case: Case, variant: Variant, mode: str, seed: int) -> dict[str, Any]:
    """Play one mode with the head of a variant."""
    from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (imports scikit-learn)

    class_ = variant.class_() if variant.class_ else InstantHead
    with contextlib.ExitStack() as changes:
        for name, value in variant.replaced.items():
            changes.enter_context(patch(name, value))
        values, spaces = vectors.of(variant.spaces)
        head = class_(values, spaces, np.ones(len(values), np.bool_), seed=seed)
        play = Play.start(case, mode, seed, lambda labels: head.fit(labels).scores)
        return play.paper() if mode == "paper" else play.hunt()


def run_all(
    variants: list[str], seeds: list[int], records: Records, shared: Path, out: Path
) -> Iterator[dict[str, Any]]:
    """Yield the records that are not there yet; a change that does not touch a case is not run on it."""
    done = {(r["case"], r["variant"], r["mode"], r["seed"]) for r in records}
    for name in CASES:
        case = Case.read(name, shared)
        folder = case.folder.parent.name
        by_feed: dict[Feed, list[str]] = {}
        for key in variants:
            variant = VARIANTS[key]
            if not variant.feeds or folder in variant.feeds:
                by_feed.setdefault(variant.feeds.get(folder, _FEEDS[folder]), []).append(key)
        for feed, keys in by_feed.items():
            wanted = [u for u in itertools.product(keys, MODES, seeds) if (name, *u) not in done]
            vectors = Vectors(case, feed, out.parent / "features") if wanted else None
            for key, mode, seed in wanted:
                assert vectors is not None
                started = time.perf_counter()
                figures = run(vectors, case, VARIANTS[key], mode, seed)
                yield {
                    "case": name,
                    "variant": key,
                    "mode": mode,
                    "seed": seed,
                    "feed": feed,
                    "precision": vectors.precision,
                    **figures,
                    "wall_s": round(time.perf_counter() - started, 1),
                    **provenance(),
                }


# ---- tables ---------------------------------------------------------------------------------------


def tables(records: Records) -> str:
    """Return Markdown tables: of all cases by seeds, and of each kind of image."""
    default = [r for r in records if r["variant"] == DEFAULT]
    head = "found@120 | found@240 | AUPRC, mean of the cycles |"
    lines = ["Less the default; bold beyond twice the standard error.", ""]
    lines += [f"| variant | seeds | {head}", "|---|---|---|---|---|"]
    changed = [name for name in VARIANTS if name != DEFAULT and any(r["variant"] == name for r in records)]
    for name, seeds in itertools.product(changed, SEEDS):
        cells = cells_of(of_variant(records, name, default), default, list(CASES), seeds)
        lines.append(f"| {name} | {seeds[0]}-{seeds[-1]} | {cells} |")
    lines += ["", f"| variant | images | {head}", "|---|---|---|---|---|"]
    for name, (kind, cases) in itertools.product(changed, KINDS.items()):
        own = [r for r in records if r["variant"] == name and r["case"] in cases]
        if own:
            lines.append(f"| {name} | {kind} | {cells_of(own, default, list(cases), SEEDS[0])} |")
    return "\n".join(lines)


def of_variant(records: Records, name: str, default: Records) -> Records:
    """Return a variant's records; on cases whose images it feeds as always, it is the default."""
    feeds = VARIANTS[name].feeds
    untouched = [r for r in default if feeds and r["case"].split("-")[0] not in feeds]
    return [r for r in records if r["variant"] == name] + untouched


def agreement(records: Records, sessions: Records) -> str:
    """Say how far the default, played in memory, is from hunt.py's sessions."""
    default = [r for r in records if r["variant"] == DEFAULT]
    said = []
    for mode, column, digits in (("hunt", "found@120", 1), ("hunt", "found@240", 1), ("paper", "auprc", 4)):
        apart = pairs(default, sessions, mode, column)
        if len(apart):
            mean, most = apart.mean(), np.abs(apart).max()
            said.append(
                f"{column} {mean:+.{digits}f} on average and {most:.{digits}f} at most ({len(apart)} runs)"
            )
    return f"\nThe default here less hunt.py's sessions: {'; '.join(said)}." if said else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS[0]))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "ablation.jsonl", help="result file")
    parser.add_argument(
        "--sessions", type=Path, default=ROOT / "build" / "hunt.jsonl", help="result file of hunt.py"
    )
    parser.add_argument(
        "--tables", action="store_true", help="run nothing: print tables from the result file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not (arguments.shared / "bench" / "cases").is_dir():
        parser.error(f"no benchmark cases in {arguments.shared}; name the folder with --shared")
    records = read(arguments.out)
    missing = run_all(arguments.variants, arguments.seeds, list(records), arguments.shared, arguments.out)
    for record in () if arguments.tables else missing:
        append(arguments.out, record)
        records.append(record)
        print(*(record[k] for k in ("case", "variant", "mode", "seed", "wall_s")), file=sys.stderr)
    records = [r for r in records if r["seed"] in arguments.seeds]
    print(tables(records))
    sessions = [r for r in read(arguments.sessions) if r["tiers"] == "instant"]
    print(agreement(records, sessions))
    if arguments.json:
        print(json.dumps({"benchmark": "ablation", "runs": records, **provenance()}))


if __name__ == "__main__":
    main()
