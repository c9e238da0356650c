"""What a logistic regression on frozen features finds, seed by seed: the bar of ../shared/bench/PROTOCOL.md.

It is the `frozen_probe` of ../shared/bench/reference.json, which gives no value for each seed, made
again: the pooled output of EfficientNet-Lite0 (ImageNet weights, no training) at 128 px, each vector
divided by its length, each column standardised over the pool; a class-balanced logistic regression,
refitted after each page. Galaxies are fed as they are, photographs reduced to 64 px and enlarged to
128 px, both bicubic: of seven pairs of filters the one whose first cycles are nearest the reference's.

    OMP_NUM_THREADS=1 python benchmarks/probe.py      # one core; goes on where it was cut off
    python benchmarks/probe.py --tables               # how close it comes to the reference
    python benchmarks/hunt.py --tiers instant --seeds 0 1 2 3 4 --tables    # and what ours gains over it

The features are kept beside the result file, which `hunt.py` looks for in build/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hunt import CASES, CYCLES, LOOKS, MODES, ORACLE, PAGE, PAGES, Case, append, rates, read
from report import ROOT, provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Records = list[dict[str, Any]]

SEEDS = (range(5), range(3), range(3, 5))  # all, those that constants were chosen on, and the others
SIDES = {"galaxyzoo1": 128, "miniimagenet": 84}  # pixels, of the files
_REDUCED = {"miniimagenet": 64}
_FED = 128
_INVERSE_PENALTY = {"paper": 3e-3, "hunt": 3e-4}
_FLOOR = 1e-6  # some of the 1280 columns are 0 for nearly all images
_BATCH = 64


# ---- both modes of the protocol, in memory --------------------------------------------------------


@dataclass
class Play:
    """A pool whose images are ranked by what `score` makes of the labels so far."""

    truth: NDArray[np.bool_]
    labels: dict[int, int]
    score: Callable[[dict[int, int]], NDArray[Any]]

    @classmethod
    def start(cls, case: Case, mode: str, seed: int, score: Callable[[dict[int, int]], NDArray[Any]]) -> Play:
        index = {image_id: i for i, image_id in enumerate(case.ids)}
        given = case.labels(seed, None if mode == "paper" else 45)
        labels = {index[image_id]: int(label == "anomaly") for image_id, label in given.items()}
        return cls(np.array([image_id in case.anomalies for image_id in case.ids]), labels, score)

    def ranked(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the images without a label, the highest score first and ties by index, and all scores."""
        scores = self.score(self.labels)
        left = np.setdiff1d(np.arange(len(self.truth)), list(self.labels))
        return left[np.argsort(-scores[left], kind="stable")], scores

    def label(self, indices: Iterable[int]) -> None:
        self.labels |= {int(i): int(self.truth[i]) for i in indices}

    def paper(self) -> dict[str, Any]:
        rows = []
        for _ in range(CYCLES):
            ranked, scores = self.ranked()
            truth = self.truth[ranked]
            rows.append(rates(truth, scores[ranked]))
            self.label([*ranked[truth][:ORACLE], *ranked[~truth][:ORACLE]])
        return {"columns": ["auroc", "auprc", "top1pct_precision"], "rows": rows}

    def hunt(self) -> dict[str, Any]:
        found, n_found = [], 0
        for _ in range(PAGES):
            offered = self.ranked()[0][:PAGE]
            self.label(offered)
            n_found += int(self.truth[offered].sum())
            found.append(n_found)
        rows = [[found[n // PAGE - 1] for n in LOOKS]]
        return {"columns": [f"found@{n}" for n in LOOKS], "rows": rows, "found": found}


# ---- the baseline ---------------------------------------------------------------------------------


def stream(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of a folder in the order of their names, in batches, as large as they are."""
    import amatch_widgets as am  # noqa: PLC0415 (a second, and before torch)
    from amatch_widgets.images.pixels import PixelPool  # noqa: PLC0415

    pool = PixelPool(
        am.open_source(folder), am.Preprocess(size=SIDES[folder.parent.name]), budget_bytes=0, threads=1
    )
    for images, _ in pool.stream(batch_size=_BATCH):
        yield images
    assert not pool.problems, pool.problems


def rows_of(case: Case) -> NDArray[np.int64]:
    """Return the places of a case's images among all of their folder."""
    return np.searchsorted(sorted(path.name for path in case.folder.iterdir()), case.ids)


def pooled(folder: Path) -> NDArray[np.float32]:
    """Return what the head of the untrained network would see of each image of a folder."""
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)

    model, parts = build_classifier("tf_efficientnet_lite0").eval(), []
    import torch  # noqa: PLC0415 (not before: amatch_widgets tells its threads how to wait)

    for images in stream(folder):
        x = torch.from_numpy(fed(images, _REDUCED.get(folder.parent.name)))
        with torch.inference_mode():
            parts.append(model.features(x.permute(0, 3, 1, 2).float() / 255).numpy())
    return np.concatenate(parts)


def fed(images: NDArray[np.uint8], reduced: int | None) -> NDArray[np.uint8]:
    """Return images at the side they are fed at, by way of a smaller one if that is given."""
    from PIL import Image  # noqa: PLC0415

    sides = [side for side in (reduced, _FED) if side]
    made = []
    for image in images:
        picture = Image.fromarray(image)
        for side in sides:
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        made.append(np.array(picture))
    return np.stack(made)


def kept(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return an array of a file, or make it and keep it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        np.save(path.with_suffix(".part.npy"), make())
        path.with_suffix(".part.npy").rename(path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return np.load(path)


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).astype(np.float64)
    return ((unit - unit.mean(0)) / (unit.std(0) + _FLOOR)).astype(np.float32)


def regress(features: NDArray[np.float32], labels: dict[int, int], inverse_penalty: float) -> NDArray[Any]:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=1000)
    return model.fit(features[list(labels)], list(labels.values())).decision_function(features)


def run_case(name: str, wanted: list[tuple[str, int]], shared: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of some (mode, seed) of a case."""
    case = Case.read(name, shared)
    path = out.parent / "features" / f"probe-{case.folder.parent.name}.npy"
    features = standardised(kept(path, lambda: pooled(case.folder))[rows_of(case)])
    for mode, seed in wanted:
        started = time.perf_counter()
        penalty = _INVERSE_PENALTY[mode]
        play = Play.start(case, mode, seed, lambda labels, c=penalty: regress(features, labels, c))
        figures = play.paper() if mode == "paper" else play.hunt()
        yield {
            "case": name,
            "mode": mode,
            "seed": seed,
            **figures,
            "wall_s": round(time.perf_counter() - started, 1),
            **provenance(),
        }


# ---- tables ---------------------------------------------------------------------------------------


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and its standard error, NaN for one value."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def signed(values: Any, digits: int) -> str:
    """Return mean ± standard error of differences, bold beyond twice the error."""
    if not len(values):
        return ""
    mean, error = mean_and_error(np.asarray(values, np.float64))
    text = f"{mean:+.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")
    return f"**{text}**" if abs(mean) > 2 * error else text


def pairs(ours: Records, theirs: Records, mode: str, column: str, **of: Any) -> NDArray[np.float64]:
    """Return differences, ours less theirs, of a column: a row for each case and seed in both.

    A row has an entry for each cycle, one in mode hunt. Options in `of` are what records must agree
    with: one value or several.
    """
    at = {
        (r["case"], r["seed"]): np.array(r["rows"])[:, r["columns"].index(column)]
        for r in theirs
        if r["mode"] == mode
    }
    found = [
        np.array(r["rows"])[:, r["columns"].index(column)] - at[r["case"], r["seed"]]
        for r in ours
        if r["mode"] == mode
        and (r["case"], r["seed"]) in at
        and all(r[key] in values for key, values in of.items())
    ]
    return np.array(found, np.float64)


def paired_tables(ours: Records, probe: Records) -> str:
    """Return Markdown tables of the paired differences, ours less the frozen probe's."""
    lines = ["", "Ours less `frozen_probe`, pairs of the same seed; bold beyond twice the standard error."]
    lines += ["", "| case | cycle | AUPRC | top 1 % | seeds |", "|---|---|---|---|---|"]
    for case in CASES:
        auprc, top = (pairs(ours, probe, "paper", c, case=[case]) for c in ("auprc", "top1pct_precision"))
        for cycle in range(CYCLES if len(auprc) else 0):
            cells = f"{signed(auprc[:, cycle], 3)} | {signed(top[:, cycle], 3)}"
            lines.append(f"| {case} | {cycle + 1} | {cells} | {len(auprc)} |")
    lines += [
        "",
        "| case | seeds | found@120 | found@240 | AUPRC, mean of the cycles |",
        "|---|---|---|---|---|",
    ]
    for name, cases in [(case, [case]) for case in CASES] + [("all four", list(CASES))]:
        for seeds in SEEDS:
            lines.append(f"| {name} | {seeds[0]}-{seeds[-1]} | {cells_of(ours, probe, cases, seeds)} |")
    return "\n".join(lines)


def cells_of(ours: Records, theirs: Records, cases: list[str], seeds: range) -> str:
    """Return three cells: found@120, found@240 and AUPRC over the cycles, ours less theirs."""
    of = {"case": cases, "seed": seeds}
    found = [signed(pairs(ours, theirs, "hunt", f"found@{n}", **of).ravel(), 1) for n in (120, 240)]
    auprc = pairs(ours, theirs, "paper", "auprc", **of)
    return " | ".join([*found, signed(auprc.mean(1) if len(auprc) else auprc, 3)])


def reproduction(records: Records, reference: dict[str, Any]) -> str:
    """Return a Markdown table of how far this probe's means lie from the reference's, in its errors."""
    lines = [
        "| case | mode | means | within one error | within two | mean, in errors | farthest, in errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, mode in itertools.product(CASES, MODES):
        found = [r["rows"] for r in records if (r["case"], r["mode"]) == (case, mode)]
        if found:
            given = reference[case]["frozen_probe"][mode]
            apart = ((np.mean(found, 0) - given["mean"]) / given["sem"]).ravel()
            size, farthest = np.abs(apart), apart[np.abs(apart).argmax()]
            within = f"{(size <= 1).sum()} | {(size <= 2).sum()}"
            lines.append(
                f"| {case} | {mode} | {len(apart)} | {within} | {apart.mean():+.1f} | {farthest:+.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS[0]))
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "probe.jsonl", help="result file")
    parser.add_argument(
        "--tables", action="store_true", help="run nothing: print the table from the result file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not (arguments.shared / "bench" / "cases").is_dir():
        parser.error(f"no benchmark cases in {arguments.shared}; name the folder with --shared")
    records = read(arguments.out)
    done = {(r["case"], r["mode"], r["seed"]) for r in records}
    for name in [] if arguments.tables else arguments.cases:
        wanted = [(m, s) for m in arguments.modes for s in arguments.seeds if (name, m, s) not in done]
        for record in run_case(name, wanted, arguments.shared, arguments.out) if wanted else ():
            append(arguments.out, record)
            records.append(record)
            print(f"{name} {record['mode']} seed {record['seed']}: {record['wall_s']} s", file=sys.stderr)
    records = [
        r
        for r in records
        if r["case"] in arguments.cases and r["mode"] in arguments.modes and r["seed"] in arguments.seeds
    ]
    print(reproduction(records, json.loads((arguments.shared / "bench" / "reference.json").read_text())))
    if arguments.json:
        print(json.dumps({"benchmark": "probe", "runs": records, **provenance()}))


if __name__ == "__main__":
    main()
