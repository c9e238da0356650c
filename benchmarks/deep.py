"""What the deep tier adds to the instant tier, and what each choice of its training brings.

A session gets its labels, trains one cycle from the instant tier's ranking, and both rankings and
their blends (`amatch_widgets.query.blend`) are compared on all images without a label.

start "pages"    5 anomalies and 45 normals, then three pages of 24 that the instant tier offers
start "again"    a cycle after those, three more pages, and a second cycle
start "many"     20 anomalies and 480 normals, drawn at random with the seed

    python benchmarks/deep.py                                   # the default on all cases
    python benchmarks/deep.py --variants hard uniform --seeds 0 --cases galaxyzoo1-merger
    python benchmarks/deep.py --tables                          # print tables from the result file

Each unit runs in a process of its own and is written to the result file at once; a run that is
started again goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from hunt import CASES, Case, append, read
from report import ROOT, peak_memory_mb, provenance
from sklearn.metrics import average_precision_score

STARTS = ("pages", "again", "many")
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "hard": {"pseudo_labels": "hard"},
    "uniform": {"likely_share": 0.0},
    "no background": {"background": 0.0},
    "plain FixMatch": {
        "pseudo_labels": "hard",
        "likely_share": 0.0,
        "background": 0.0,
        "unlabelled_ratio": 5,
    },
    "no L2-SP": {"l2_sp": 0.0},
    "labels alone": {"unlabelled_ratio": 0},
    "restart": {"restart": True},
    "whole network": {"frozen_stages": 0},
    "1 stage frozen": {"frozen_stages": 1},
    "2 stages frozen": {"frozen_stages": 2},
    "norm in training": {"freeze_norm": False},
    "25 steps": {"steps": 25},
    "50 steps": {"steps": 50},
    "200 steps": {"steps": 200},
    "rate 0.0002": {"learning_rate": 2e-4},
    "rate 0.001": {"learning_rate": 1e-3},
    "embedded again": {},  # the trained network's vectors rank, through the instant head, not its own head
}
NAMES = (*VARIANTS, "stage rates", "alignment", "FlexMatch", "FreeMatch", "SoftMatch", "quota", "no EMA")
WEIGHTS = (0.5, 1.0, 2.0)
_STEPS = 100
_PAGE, _PAGES = 24, 3
_SAMPLE = 4096  # images that a projection is fitted on, as in the package
_MANY = {"anomaly": 20, "normal": 480}


@dataclass(frozen=True)
class Unit:
    """One run."""

    case: str
    start: str
    seed: int
    variant: str
    shared: str


def run(unit: Unit) -> dict[str, Any]:
    """Run one unit and return its record."""
    import amatch_widgets as am  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.query.blend import blend  # noqa: PLC0415
    from amatch_widgets.score.store import ScoreStore  # noqa: PLC0415

    # isort: split
    from choices import CHOICES  # noqa: PLC0415 (loads torch)

    CHOICES.get(unit.variant, lambda: None)()
    case = Case.read(unit.case, Path(unit.shared))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        for image_id in case.ids:  # the case's images alone, as a user would link them
            (folder / image_id).symlink_to(case.folder / image_id)
        options = {"steps": _STEPS, "seed": unit.seed, "test_share": 0, **VARIANTS.get(unit.variant, {})}
        config = am.TrainConfig(**options)
        labels = many(case, unit.seed) if unit.start == "many" else case.labels(unit.seed, 45)
        with am.Session(folder, labels=labels, path=Path(scratch, "run"), train=config) as session:
            session.embed()
            session.wait()
            if unit.start != "many":
                look(session, case)
            if unit.start == "again":
                session.train()
                session.wait()
                look(session, case)
            session.train()
            session.wait()
            session.query(0)  # waits until the instant tier has learnt from all labels
            instant = session._board._fit.scores  # noqa: SLF001 (of both tiers only what ranks is public)
            cycle = session.history.cycles[-1]
            if unit.variant == "embedded again":
                deep = embedded_again(session, unit.seed)
            else:
                deep = ScoreStore(session.path).load(cycle.cycle, len(instant))
            free = session.ranking("random", show="unlabelled")
            truth = np.array([session.source.ids[i] in case.anomalies for i in free])
            rankings = {"instant": instant, "deep": deep}
            rankings |= {f"blend {weight:g}": blend(instant, deep, weight) for weight in WEIGHTS}
            counts = session.labels.counts()
    return {
        **{key: value for key, value in asdict(unit).items() if key != "shared"},
        "auprc": {name: average_precision_score(truth, scores[free]) for name, scores in rankings.items()},
        "top1pct": {name: top(truth, scores[free]) for name, scores in rankings.items()},
        "labels": counts,
        "left": int(truth.sum()),
        "train_s": round(cycle.train_s, 1),
        "score_s": round(cycle.score_s, 1),
        "peak_mb": round(peak_memory_mb()),
        "config": config.to_dict(),
        **provenance(),
    }


def embedded_again(session: Any, seed: int) -> np.ndarray:
    """Return the scores of an instant head on the vectors of the trained network, whitened anew."""
    from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (as above)
    from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (as above)

    model = session._engine.trained()  # noqa: SLF001 (as in `run`)
    embedder = Embedder(model, side=model.side, n_views=model.shape.n_views)
    raw = np.concatenate([embedder.raw(images) for images, _ in session._pool.stream(batch_size=256)])  # noqa: SLF001
    sample = np.random.default_rng(seed).choice(len(raw), min(len(raw), _SAMPLE), replace=False)
    projection = Projection.fit(raw[np.sort(sample)], embedder.blocks, seed=seed)
    head = InstantHead(projection.apply(raw), projection.spaces, np.ones(len(raw), np.bool_), seed=seed)
    index = {image_id: i for i, image_id in enumerate(session.source.ids)}
    current = session.labels.current().items()
    return head.fit({index[i]: int(label.label == "anomaly") for i, label in current}).scores


def look(session: Any, case: Case) -> None:
    """Label the pages that the session offers."""
    for _ in range(_PAGES):
        offered = [candidate.image_id for candidate in session.query(_PAGE)]
        session.label({i: "anomaly" if i in case.anomalies else "normal" for i in offered})


def many(case: Case, seed: int) -> dict[str, str]:
    """Draw the labels of the start "many"."""
    rng = np.random.default_rng(seed)
    labels = {}
    for label, n in _MANY.items():
        ids = [i for i in case.ids if (i in case.anomalies) == (label == "anomaly")]
        labels |= dict.fromkeys(rng.choice(ids, n, replace=False).tolist(), label)
    return labels


def top(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of anomalies in the top 1 %."""
    n_top = max(1, round(len(truth) / 100))
    return float(truth[np.argsort(-scores, kind="stable")[:n_top]].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["pages"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=["default"])
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "deep.jsonl", help="result file")
    parser.add_argument(
        "--tables", action="store_true", help="run nothing: print tables from the result file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    units = [
        Unit(case, start, seed, variant, str(arguments.shared))
        for start in arguments.starts
        for variant in arguments.variants
        for seed in arguments.seeds
        for case in arguments.cases
    ]
    records = read(arguments.out)
    if not arguments.tables:
        if not (arguments.shared / "bench" / "cases").is_dir():
            parser.error(f"no benchmark cases in {arguments.shared}; name the folder with --shared")
        records = run_all(units, records, arguments.out)
    print(tables(records))
    if arguments.json:
        print(json.dumps({"benchmark": "deep", "runs": records, **provenance()}))


def run_all(units: list[Unit], records: list[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """Run what is not in the result file yet, one process each."""
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["AMATCH_CACHE"] = str(out.parent / "embeddings")
    for unit in units:
        wanted = {key: value for key, value in asdict(unit).items() if key != "shared"}
        if any(all(record[key] == value for key, value in wanted.items()) for record in records):
            continue
        started = time.perf_counter()
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            record = process.submit(run, unit).result()
        append(out, record)
        records.append(record)
        found = {name: round(value, 3) for name, value in record["auprc"].items()}
        print(*wanted.values(), found, f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return records


def tables(records: list[dict[str, Any]]) -> str:
    """Return Markdown tables: AUPRC of both tiers and their blends, by case and by variant."""
    columns = ["instant", "deep", *(f"blend {weight:g}" for weight in WEIGHTS)]
    lines = []
    for start in STARTS:
        of_start = [r for r in records if r["start"] == start]
        groups = sorted({(r["variant"], r["case"]) for r in of_start}, key=_order)
        if groups:
            lines += ["", f"| variant | case ({start}) | {' | '.join(columns)} | seeds | train s |"]
            lines += ["|---" * (len(columns) + 4) + "|"]
        for variant, case in groups:
            found = [r for r in of_start if (r["variant"], r["case"]) == (variant, case)]
            values = np.array([[r["auprc"][name] for name in columns] for r in found])
            cells = [f"{values[:, 0].mean():.3f}"]
            cells += [_gain(values[:, k], values[:, 0]) for k in range(1, len(columns))]
            seeds = ", ".join(str(s) for s in sorted(r["seed"] for r in found))
            slowest = max(r["train_s"] for r in found)
            lines.append(f"| {variant} | {case} | {' | '.join(cells)} | {seeds} | {slowest:.0f} |")
    return "\n".join(lines)


def _order(group: tuple[str, str]) -> tuple[int, int]:
    variant, case = group
    return NAMES.index(variant), CASES.index(case)


def _gain(values: np.ndarray, alone: np.ndarray) -> str:
    """Return the mean and the paired difference to the instant tier with its standard error."""
    gain = values - alone
    error = f" ± {gain.std(ddof=1) / np.sqrt(len(gain)):.3f}" if len(gain) > 1 else ""
    return f"{values.mean():.3f} ({gain.mean():+.3f}{error})"


if __name__ == "__main__":
    main()
