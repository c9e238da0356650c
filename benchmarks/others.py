"""Hunts for the classes that are no case of the protocol: what the instant tier finds, and the frozen probe.

All classes of ../shared/data but the four cases' own, each in turn the rare one: 98 of miniImageNet, each 1 %
of 10,000 images, with one draw of first labels, and three of Galaxy Zoo with five draws. The product's own
`Embedder`, `Projection` and `InstantHead` with their defaults, and the probe of probe.py, play both modes
of ../shared/bench/PROTOCOL.md in memory, from the same labels.

    OMP_NUM_THREADS=1 python benchmarks/others.py     # one core, 25 minutes; goes on where it was cut off
    python benchmarks/others.py --tables              # run nothing: print from the result file

Raw features are kept beside the result file, and are those of ablation.py and probe.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ablation import _FEEDS, Vectors
from hunt import CASES, MODES, Case, append, read
from probe import _INVERSE_PENALTY, Play, kept, pooled, regress, rows_of, signed, standardised
from report import ROOT, provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Records = list[dict[str, Any]]

METHODS = ("ours", "probe")
FIGURES = ("found@24", "found@120", "found@240", "AUPRC")
_GIVEN = {"anomaly": 5, "normal": 95}
_RARE = 56  # galaxies, as many as there are of the rarest class: 1 %
# The rare class, and which others it is hidden among; spirals of both senses look the same but for it.
_GALAXIES = {
    "dont_know": ("elliptical", "spiral_clockwise", "spiral_anticlockwise", "edge_on"),
    "spiral_clockwise": ("elliptical", "edge_on"),
    "spiral_anticlockwise": ("elliptical", "edge_on"),
}


def cases(shared: Path) -> Iterator[tuple[str, Case]]:
    """Yield the name of each hunt, and the case with a draw of first labels for each seed."""
    tuned = {
        json.loads((shared / "bench" / "cases" / f"{name}.json").read_text())["anomaly"] for name in CASES
    }
    by_class = classes(shared / "data" / "galaxyzoo1")
    for rare, others in _GALAXIES.items():
        rng = np.random.default_rng(0)
        anomalies = sorted(rng.choice(by_class[rare], _RARE, replace=False).tolist())
        ids = sorted(anomalies + [image_id for other in others for image_id in by_class[other]])
        yield f"galaxyzoo1-{rare}", drawn(shared, "galaxyzoo1", ids, anomalies, 5)
    by_class = classes(shared / "data" / "miniimagenet")
    every = sorted(image_id for ids in by_class.values() for image_id in ids)
    for rare, anomalies in by_class.items():
        if not any(name.endswith(f" {rare}") for name in tuned):
            yield f"miniimagenet-{rare}", drawn(shared, "miniimagenet", every, anomalies, 1)


def classes(folder: Path) -> dict[str, list[str]]:
    """Return the images of each class."""
    found: dict[str, list[str]] = {}
    with (folder / "classes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["class"], []).append(row["filename"])
    return found


def drawn(shared: Path, folder: str, ids: list[str], anomalies: list[str], n_draws: int) -> Case:
    """Return a case whose first labels are drawn at random."""
    initial = {}
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        normals = np.setdiff1d(ids, anomalies)
        initial[str(seed)] = {
            "anomaly": rng.choice(anomalies, _GIVEN["anomaly"], replace=False).tolist(),
            "normal": rng.choice(normals, _GIVEN["normal"], replace=False).tolist(),
        }
    return Case(shared / "data" / folder / "images", ids, frozenset(anomalies), initial)


class Rankers:
    """What ranks the images of a case: our head on our vectors, and the probe on its own."""

    def __init__(self, case: Case, features: Path) -> None:
        folder = case.folder.parent.name
        self._vectors, self._spaces = Vectors(case, _FEEDS[folder], features).of((0, 1))
        probe = kept(features / f"probe-{folder}.npy", lambda: pooled(case.folder))
        self._features = standardised(probe[rows_of(case)])

    def play(self, method: str, mode: str, case: Case, seed: int) -> dict[str, Any]:
        from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (imports scikit-learn)

        penalty = _INVERSE_PENALTY[mode]
        head = InstantHead(self._vectors, self._spaces, np.ones(len(self._vectors), np.bool_), seed=seed)

        def ours(labels: dict[int, int]) -> NDArray[Any]:
            return head.fit(labels).scores

        def probe(labels: dict[int, int]) -> NDArray[Any]:
            return regress(self._features, labels, penalty)

        play = Play.start(case, mode, seed, ours if method == "ours" else probe)
        return play.paper() if mode == "paper" else play.hunt()


def run_all(shared: Path, out: Path, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the records that are not there yet."""
    rankers: Rankers | None = None
    made_for: list[str] = []
    for name, case in cases(shared):
        for seed in map(int, case.initial):
            for mode in MODES:
                for method in METHODS:
                    if (name, mode, seed, method) in done:
                        continue
                    if rankers is None or made_for != case.ids:  # all photographs share their vectors
                        rankers, made_for = Rankers(case, out.parent / "features"), case.ids
                    started = time.perf_counter()
                    yield {
                        "case": name,
                        "mode": mode,
                        "seed": seed,
                        "method": method,
                        **rankers.play(method, mode, case, seed),
                        "wall_s": round(time.perf_counter() - started, 1),
                        **provenance(),
                    }


# ---- tables ---------------------------------------------------------------------------------------


def figures(records: Records) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return `FIGURES` of each case and method, means over its seeds: AUPRC is the mean of three cycles."""
    found: dict[str, dict[str, list[Any]]] = {}
    for key in {(r["case"], r["seed"]) for r in records}:
        for method in METHODS:
            own = {r["mode"]: r for r in records if (r["case"], r["seed"], r["method"]) == (*key, method)}
            if own.keys() == set(MODES):
                hunt, paper = own["hunt"], own["paper"]
                at = [hunt["rows"][0][hunt["columns"].index(name)] for name in FIGURES[:-1]]
                auprc = np.mean([row[paper["columns"].index("auprc")] for row in paper["rows"]])
                found.setdefault(key[0], {}).setdefault(method, []).append([*at, auprc])
    return {
        case: {method: np.mean(rows, 0) for method, rows in by_method.items()}
        for case, by_method in sorted(found.items())
        if by_method.keys() == set(METHODS)
    }


def tables(records: Records) -> str:
    """Return Markdown tables: all photographs together; each galaxy class, and where least is gained."""
    found = figures(records)
    photographs = [case for case in found if case.startswith("miniimagenet")]
    lines = ["| images | figure | ours | probe | gain | ours above | equal | below |", "|---" * 8 + "|"]
    for k, figure in enumerate(FIGURES if photographs else ()):
        ours, probe = (np.array([found[case][m][k] for case in photographs]) for m in METHODS)
        digits = 3 if figure == "AUPRC" else 1
        gain = ours - probe
        cells = [f"{values.mean():.{digits}f}" for values in (ours, probe)] + [signed(gain, digits)]
        cells += [str(int(n.sum())) for n in (gain > 0, gain == 0, gain < 0)]
        lines.append(f"| {len(photographs)} photograph classes | {figure} | {' | '.join(cells)} |")
    columns = " | ".join(f"{name}, ours and probe" for name in FIGURES)
    lines += ["", f"| class | {columns} |", "|---" * 5 + "|"]
    by_gain = sorted(photographs, key=lambda case: float((found[case]["ours"] - found[case]["probe"])[2]))
    for case in [c for c in found if c not in photographs] + by_gain[:5] + by_gain[-2:]:
        ours, probe = (found[case][method] for method in METHODS)
        cells = [
            f"{a:.{digits}f}, {b:.{digits}f}" for a, b, digits in zip(ours, probe, (1, 1, 1, 3), strict=True)
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "others.jsonl", help="result file")
    parser.add_argument(
        "--tables", action="store_true", help="run nothing: print tables from the result file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not (arguments.shared / "bench" / "cases").is_dir():
        parser.error(f"no benchmark cases in {arguments.shared}; name the folder with --shared")
    records = read(arguments.out)
    done = {(r["case"], r["mode"], r["seed"], r["method"]) for r in records}
    for record in () if arguments.tables else run_all(arguments.shared, arguments.out, done):
        append(arguments.out, record)
        records.append(record)
        print(*(record[k] for k in ("case", "mode", "seed", "method", "wall_s")), file=sys.stderr, flush=True)
    print(tables(records))
    if arguments.json:
        print(json.dumps({"benchmark": "others", "runs": records, **provenance()}))


if __name__ == "__main__":
    main()
