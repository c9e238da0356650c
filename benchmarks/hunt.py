"""How many rare images a hunt finds: ../shared/bench/PROTOCOL.md through the public Session API.

Each (case, mode, seed) runs in a process of its own and is written to the result file as soon as
it is done; a run that is started again goes on where it was cut off.

    python benchmarks/hunt.py --cases galaxyzoo1-merger --modes paper hunt --seeds 0 1 2
    python benchmarks/hunt.py --tiers instant   # without the deep tier: minutes instead of hours
    python benchmarks/hunt.py --tables          # print the tables of RESULTS.md from the result file;
                                                # with build/probe.jsonl (probe.py) the paired ones, too

All options of the session are the defaults. Embeddings are kept between the runs, as between the
sessions of a user; ``embed_s`` says how long they took where they were made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from report import ROOT, peak_memory_mb, provenance
from sklearn.metrics import average_precision_score, roc_auc_score

CASES = ("galaxyzoo1-merger", "galaxyzoo1-edge-on", "miniimagenet-crate", "miniimagenet-hair-slide")
MODES = ("paper", "hunt")
TIERS = ("instant", "both")
LOOKS = (24, 72, 120, 240)
PAGE, PAGES, CYCLES, ORACLE = 24, 10, 3, 10


@dataclass(frozen=True)
class Unit:
    """One run."""

    case: str
    mode: str
    seed: int
    tiers: str
    steps: int
    look_s: float
    shared: str


@dataclass(frozen=True)
class Case:
    """The images, the truth, and the labels a hunt starts with."""

    folder: Path
    ids: list[str]
    anomalies: frozenset[str]
    initial: dict[str, dict[str, list[str]]]

    @classmethod
    def read(cls, name: str, shared: Path) -> Case:
        content = json.loads((shared / "bench" / "cases" / f"{name}.json").read_text())
        folder = shared / "data" / content["images"]
        ids = sorted(path.name for path in folder.iterdir()) if content["ids"] == "all" else content["ids"]
        return cls(folder, ids, frozenset(content["anomalies"]), content["initial"])

    def labels(self, seed: int, n_normals: int | None = None) -> dict[str, str]:
        start = self.initial[str(seed)]
        return dict.fromkeys(start["anomaly"], "anomaly") | dict.fromkeys(
            start["normal"][:n_normals], "normal"
        )


def run(unit: Unit) -> dict[str, Any]:
    """Run one unit and return its record."""
    import amatch_widgets as am  # noqa: PLC0415 (in the child process alone)

    case = Case.read(unit.case, Path(unit.shared))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        for image_id in case.ids:  # the case's images alone, as a user would link them
            (folder / image_id).symlink_to(case.folder / image_id)
        config = am.TrainConfig(
            steps=unit.steps,
            seed=unit.seed,
            test_share=0,  # the protocol gives all labels to the method and judges on the others
        )
        session = am.Session(
            folder,
            labels=case.labels(unit.seed, None if unit.mode == "paper" else 45),
            path=Path(scratch, "run"),
            train=config,
        )
        with session:
            began = time.perf_counter()
            session.embed()
            session.wait()
            embed_s = time.perf_counter() - began
            figures = paper(session, case, unit) if unit.mode == "paper" else hunt(session, case, unit)
            cycles = session.history.cycles
    return {
        **{key: value for key, value in asdict(unit).items() if key != "shared"},
        **figures,
        "embed_s": round(embed_s, 1),
        "train_s": [round(c.train_s, 1) for c in cycles],
        "deep_weights": [c.deep_weight for c in cycles],
        "score_s": [round(c.score_s, 1) for c in cycles],
        "wall_s": round(time.perf_counter() - started, 1),
        "peak_mb": round(peak_memory_mb()),
        "config": config.to_dict(),
        **provenance(),
    }


def paper(session: Any, case: Case, unit: Unit) -> dict[str, Any]:
    """Three cycles; after each, metrics on all images without a label, then 10 + 10 oracle labels."""
    rows = []
    for _ in range(CYCLES):
        if unit.tiers == "both":
            session.train()
            session.wait()
        session.query(0)  # waits until the instant tier has learnt from all labels
        ranked = session.ranking("highest", show="unlabelled")
        truth = np.array([session.source.ids[i] in case.anomalies for i in ranked])
        rows.append(rates(truth, session.scores[ranked]))
        oracle = {session.source.ids[i]: "anomaly" for i in ranked[truth][:ORACLE]}
        oracle |= {session.source.ids[i]: "normal" for i in ranked[~truth][:ORACLE]}
        session.label(oracle, by="oracle")
    return {"columns": ["auroc", "auprc", "top1pct_precision"], "rows": rows}


def rates(truth: np.ndarray, scores: np.ndarray) -> list[float]:
    """Return AUROC, AUPRC and the precision in the top 1 % of images that are given in their order."""
    n_top = max(1, round(len(truth) / 100))
    return [
        float(roc_auc_score(truth, scores)),
        float(average_precision_score(truth, scores)),
        float(truth[:n_top].mean()),
    ]


def hunt(session: Any, case: Case, unit: Unit) -> dict[str, Any]:
    """Ten pages of what the session offers, all labelled; the deep tier trains meanwhile."""
    found, waits = [], []
    n_found = 0
    for _ in range(PAGES):
        if unit.tiers == "both" and not session.is_busy:
            session.train()
        started = time.perf_counter()
        offered = [candidate.image_id for candidate in session.query(PAGE)]
        waits.append(round(time.perf_counter() - started, 2))
        time.sleep(unit.look_s)  # the person looks at the page
        answers = {i: "anomaly" if i in case.anomalies else "normal" for i in offered}
        session.label(answers, by="truth")
        n_found += sum(label == "anomaly" for label in answers.values())
        found.append(n_found)
    session.stop()
    session.wait()
    return {
        "columns": [f"found@{n}" for n in LOOKS],
        "rows": [[found[n // PAGE - 1] for n in LOOKS]],
        "found": found,
        "waits_s": waits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tiers", choices=TIERS, default="both")
    parser.add_argument("--steps", type=int, default=80, help="training steps of a cycle")
    parser.add_argument(
        "--look-s", type=float, default=20, help="mode hunt: seconds that a page of 24 is looked at"
    )
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "hunt.jsonl", help="result file")
    parser.add_argument(
        "--probe", type=Path, default=ROOT / "build" / "probe.jsonl", help="result file of probe.py"
    )
    parser.add_argument(
        "--tables", action="store_true", help="run nothing: print tables from the result file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not (arguments.shared / "bench" / "cases").is_dir():
        parser.error(f"no benchmark cases in {arguments.shared}; name the folder with --shared")
    look_s = arguments.look_s if arguments.tiers == "both" else 0.0
    units = [
        Unit(case, mode, seed, arguments.tiers, arguments.steps, look_s, str(arguments.shared))
        for seed in arguments.seeds
        for mode in arguments.modes
        for case in arguments.cases
    ]
    records = read(arguments.out)
    if not arguments.tables:
        records = run_all(units, records, arguments.out)
    wanted = [r for r in records if any(_is_of(r, unit) for unit in units)]
    print(tables(wanted, arguments.shared / "bench" / "reference.json"))
    probe = read(arguments.probe)
    if wanted and probe:
        from probe import paired_tables  # noqa: PLC0415 (it imports from here)

        print(paired_tables(wanted, probe))
    if arguments.json:
        print(json.dumps({"benchmark": "hunt", "runs": wanted, **provenance()}))


def run_all(units: list[Unit], records: list[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """Run what is not in the result file yet, one process each, so that peak memory is its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["AMATCH_CACHE"] = str(out.parent / "embeddings")
    for unit in units:
        if any(_is_of(record, unit) for record in records):
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            record = process.submit(run, unit).result()
        append(out, record)
        records.append(record)
        rounded = [[round(value, 4) for value in row] for row in record["rows"]]
        print(
            f"{unit.case} {unit.mode} seed {unit.seed}: {rounded}, {record['wall_s']:.0f} s", file=sys.stderr
        )
    return records


def append(out: Path, record: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a result file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _is_of(record: dict[str, Any], unit: Unit) -> bool:
    return all(record[key] == value for key, value in asdict(unit).items() if key != "shared")


def tables(records: list[dict[str, Any]], reference_file: Path) -> str:
    """Return Markdown tables: mean ± standard error over the seeds, beside the references."""
    reference = json.loads(reference_file.read_text())
    lines = []
    for mode in MODES:
        columns = next((r["columns"] for r in records if r["mode"] == mode), None)
        if columns is None:
            continue
        lines += [
            "",
            f"| case | method | {'cycle | ' if mode == 'paper' else ''}{' | '.join(columns)} | seeds |",
        ]
        lines += ["|---" * (lines[-1].count("|") - 1) + "|"]
        for case in CASES:
            rows = [r["rows"] for r in records if (r["case"], r["mode"]) == (case, mode)]
            if rows:
                lines += _lines(case, "**ours**", mode, np.array(rows))
                lines += _reference_lines(case, mode, reference[case])
    waits = [wait for r in records if r["mode"] == "hunt" for wait in r["waits_s"][1:]]
    if waits:
        lines += [
            "",
            f"Wait between pages: median {statistics.median(waits):.1f} s, longest {max(waits):.1f} s.",
        ]
    if records:
        lines += ["", f"Peak memory: {max(r['peak_mb'] for r in records)} MB."]
    return "\n".join(lines)


def _lines(case: str, method: str, mode: str, values: np.ndarray) -> list[str]:
    n = len(values)
    error = values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)
    return [
        _line([case, method], mode, i, (m, e), n)
        for i, (m, e) in enumerate(zip(values.mean(0), error, strict=True))
    ]


def _reference_lines(case: str, mode: str, reference: dict[str, Any]) -> list[str]:
    lines = []
    for method, results in reference.items():
        found = results.get(mode)
        if found:
            means = np.atleast_2d(found["mean"])
            errors = np.atleast_2d(found.get("sem", np.full(means.shape, np.nan)))
            lines += [
                _line([case, method], mode, i, (m, e), found["seeds"])
                for i, (m, e) in enumerate(zip(means, errors, strict=True))
            ]
    return lines


def _line(names: list[str], mode: str, row: int, values: tuple[np.ndarray, np.ndarray], n: int) -> str:
    digits = 3 if mode == "paper" else 1
    cells = [
        f"{mean:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")
        for mean, error in zip(*values, strict=True)
    ]
    cycle = [str(row + 1)] if mode == "paper" else []
    return "| " + " | ".join([*names, *cycle, *cells, str(n)]) + " |"


if __name__ == "__main__":
    main()
