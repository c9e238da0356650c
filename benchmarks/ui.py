"""How quickly the dashboard answers, in a real JupyterLab with headless Chromium.

On the galaxy images of ../shared where they are and on the demo sky elsewhere:

import_s          `import amatch_widgets` in a fresh process
dashboard_s       from running the cell (imports done) to 48 images on screen
page_ms           from the click on "next page" to all 48 new images on screen
key_idle_ms       from a label key to the new state of its tile
key_kept_idle_ms  the same to the confirmation that the label is on disk
..._training_ms   the same while FixMatch trains on all cores
..._busy_ms       the same while a cell runs a loop in pure Python

On a million images with scores:

sort_1e6_ms       from the choice of another order or filter to the first tile of the new list
sort_1e6_kernel_ms   the part of it that is the kernel's ranking
sort_1e6_other_ms the same as seen, for the orders and lists that rest on labels: what has risen, second look,
                  recently labelled, starred, and by tag

journal           1,000 lines of labels by keys over pages, ranges and undo: those lost or doubled on disk
killed            the same with the kernel killed: lines that were shown as kept and are not there
memory            what the kernel and the page hold over 500 page turns with labels in between
slow              keys and page turns over a connection with a round trip of 200 ms

    python benchmarks/ui.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from endurance import LIGHT, journal, killed, memory, slow
from playwright.sync_api import sync_playwright
from report import ROOT, lab_driver, provenance
from stopwatch import CHANGE, KEY, RUN_CELL, TURN

_TILES = 48
_NEXT = [_TILES, ".amw-next"]


class Desk:
    """A JupyterLab, a browser, and a folder to work in.

    Parameters
    ----------
    playwright : Playwright
    scratch : Path
    images : Path
        A folder of images.
    """

    def __init__(self, playwright: Any, scratch: Path, images: Path) -> None:
        self.scratch = scratch
        self.source = f"am.open_source({str(images)!r})" if images.is_dir() else "am.demo.sky(20_000, seed=0)"
        self._driver = lab_driver()
        self.lab = self._driver.Lab(scratch / "lab")
        self._browser = playwright.chromium.launch(
            executable_path=self._driver.chromium(), args=self._driver.CHROMIUM_ARGS
        )

    def open(self, name: str, source: str = "", *, then: str = "", train: str = "", **options: Any) -> Any:
        """Open a notebook whose second cell shows a session, with the first one run."""
        self.lab.stop_kernels()
        lines = [
            "import amatch_widgets as am\nimport amatch_widgets.widgets",
            f"session = am.Session({source or self.source}, path={str(self.run(name))!r}{train})",
            "first = session.source.ids[:50]",
            "session.label({i: 'anomaly' if k < 5 else 'normal' for k, i in enumerate(first)})",
            then,
        ]
        again = f"again = am.Session.open({str(self.run(name))!r})\nagain"
        page = self._browser.new_page(viewport={"width": 1280, "height": 900})
        cells = ["\n".join(lines), "session", f"import amatch_widgets as am\n{again}"]
        notebook = self._driver.Notebook(self.lab, page, cells, **options)
        notebook.run(0)
        if "Error" in notebook.output(0):
            raise RuntimeError(notebook.output(0))
        return notebook

    def run(self, name: str) -> Path:
        """Return the folder of a session."""
        return self.scratch / name

    def close(self) -> None:
        """End the browser and the server."""
        self._browser.close()
        self.lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="page turns and keys that each median is of")
    parser.add_argument("--labels", type=int, default=1000, help="lines that the scripted user asks for")
    parser.add_argument("--turns", type=int, default=500, help="page turns while the memory is watched")
    parser.add_argument(
        "--images", type=Path, default=ROOT.parent / "shared" / "data" / "galaxyzoo1" / "images"
    )
    parts = {
        "dashboard": lambda desk: dashboard(desk, arguments.repeats),
        "million": lambda desk: million(desk, arguments.repeats),
        "journal": lambda desk: journal(desk, arguments.labels),
        "killed": lambda desk: killed(desk, arguments.labels // 2),
        "memory": lambda desk: memory(desk, arguments.turns),
        "slow": lambda desk: slow(desk, arguments.repeats),
    }
    parser.add_argument(
        "--only", nargs="+", choices=list(parts), default=list(parts), help="parts to measure"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"import_s": import_s()}
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        desk = Desk(playwright, Path(scratch), arguments.images)
        try:
            for part in arguments.only:
                found = parts[part](desk)
                figures |= found
                for name, value in found.items():
                    print(f"{name}: {json.dumps(value)}", flush=True)
        finally:
            desk.close()
    if arguments.json:
        source = arguments.images.name if arguments.images.is_dir() else "sky"
        print(json.dumps({"benchmark": "ui", "seeds": [0], "source": source, **figures, **provenance()}))


def import_s() -> float:
    """Return the median time of `import amatch_widgets` over 5 fresh processes, s."""
    code = "import time; t = time.perf_counter(); import amatch_widgets; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return round(statistics.median(float(run.stdout) for run in runs), 4)


def dashboard(desk: Desk, repeats: int) -> dict[str, Any]:
    """Return the figures of the dashboard; times in ms but for `dashboard_s`."""
    notebook = desk.open("dashboard", train=LIGHT)
    page = notebook.page
    dashboard_s = page.evaluate(RUN_CELL, _TILES)
    notebook.ask("session.wait()")  # for the embeddings, which it begins to make by itself
    turns = [page.evaluate(TURN, _NEXT) for _ in range(repeats)]
    idle = [page.evaluate(KEY, _key(k)) for k in range(repeats)]

    page.evaluate(TURN, _NEXT)
    notebook.page.evaluate(
        "code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".requestExecute({ code, store_history: false }); }",
        "print('busy')\nwhile True: pass",
    )
    busy = [page.evaluate(KEY, _key(k)) for k in range(repeats)]
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    page.close()

    notebook = desk.open("training")
    page = notebook.page
    page.evaluate(RUN_CELL, _TILES)
    problem = notebook.ask("session.train(5000)")
    if problem:
        raise RuntimeError(problem)
    while int(notebook.ask("print(session.step)")) < 3:  # torch is imported and warm by then
        pass
    page.evaluate(TURN, _NEXT)
    training = [page.evaluate(KEY, _key(k)) for k in range(repeats)]
    turns_training = [page.evaluate(TURN, _NEXT) for _ in range(repeats)]
    steps = int(notebook.ask("print(session.step)"))
    notebook.ask("session.stop(); session.wait(); session.close()")
    page.close()
    return {
        "dashboard_s": round(dashboard_s, 2),
        "page_ms": summary(turns),
        "page_training_ms": summary(turns_training),
        "key_idle_ms": summary([seen for seen, _ in idle]),
        "key_kept_idle_ms": summary([kept for _, kept in idle]),
        "key_busy_ms": summary([seen for seen, _ in busy]),
        "key_kept_busy_ms": summary([kept for _, kept in busy]),
        "key_training_ms": summary([seen for seen, _ in training]),
        "key_kept_training_ms": summary([kept for _, kept in training]),
        "steps_trained_meanwhile": steps,
    }


# Scores are put in place and no image is embedded: it is the lists that are measured here.
_SCORED = """
import time
import numpy as np
from amatch_widgets.query.head import InstantFit
from amatch_widgets.session.selection import Filter
scores = np.random.default_rng(0).random(len(session.source), np.float32)
session._board.use_instant(InstantFit(scores, "labels", (0.5, 0.5), -1.0, 5, 45, None, 0.0), None)
session.embed = lambda: None

def ms(how, show, **only):
    start = time.perf_counter()
    session.ranking(how, show=show, only=Filter(**only), seed=1)
    return 1000 * (time.perf_counter() - start)
"""

# A thousand labels, some starred and some tagged, and a ranking that has moved since.
_RISEN = """
ids = session.source.ids[1000:2000]
session.label({i: "anomaly" if k % 20 == 0 else "normal" for k, i in enumerate(ids)})
session.annotate(ids[:500], star=True)
session.annotate(ids[500:], add=["ring"])
moved = np.random.default_rng(1).random(len(session.source), np.float32)
session._board.use_instant(InstantFit(moved, "labels", (0.5, 0.5), -1.0, 5, 45, None, 0.0), None)
"""
# What is chosen, in which field, and what leads back to all images by score.
_OTHERS = [
    ("rising", [".amw-sort", "rising"], [".amw-sort", "highest"]),
    ("recent", [".amw-sort", "recent"], [".amw-sort", "highest"]),
    ("second look", [".amw-sort", "second look"], [".amw-show", "all"]),
    ("starred", [".amw-show", "starred"], [".amw-show", "all"]),
    ("tag", [".amw-tagged", "ring"], [".amw-tagged", ""]),
]


def million(desk: Desk, repeats: int) -> dict[str, Any]:
    """Return the times to sort and filter a million images, in the kernel and as seen."""
    notebook = desk.open("million", "am.demo.sky(1_000_000, seed=0, size=16)", then=_SCORED)
    page = notebook.page
    page.evaluate(RUN_CELL, _TILES)
    orders = ["lowest", "uncertain", "random", "highest"]
    kernel = [float(notebook.ask(f"print(ms({orders[k % 4]!r}, 'all'))")) for k in range(repeats)]
    filtered = [float(notebook.ask(f"print(ms('highest', 'all', contains='{k}7'))")) for k in range(repeats)]
    page.select_option(".amw-show", "all")
    sorts = [page.evaluate(CHANGE, [".amw-sort", orders[k % 4]]) for k in range(repeats)]
    shows = [page.evaluate(CHANGE, [".amw-show", ["unlabelled", "all"][k % 2]]) for k in range(repeats)]
    page.click(".amw-filter-toggle")
    filters = [page.evaluate(CHANGE, [".amw-contains", f"{k}7"]) for k in range(repeats)]
    ranges = [page.evaluate(CHANGE, [".amw-least", str(0.3 + 0.01 * k)]) for k in range(repeats)]
    page.click(".amw-unfilter")
    notebook.ask(_RISEN)
    page.click(".amw-filter-toggle")
    page.wait_for_selector(".amw-tagged option[value='ring']", state="attached")
    others: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, there, back in _OTHERS:
            others.setdefault(name, []).append(page.evaluate(CHANGE, there))
            page.evaluate(CHANGE, back)
    page.click(".amw-unfilter")
    page.evaluate(CHANGE, [".amw-show", "unlabelled"])
    turns = [page.evaluate(TURN, _NEXT) for _ in range(repeats)]
    keys = [page.evaluate(KEY, _key(k)) for k in range(repeats)]
    page.close()
    return {
        "sort_1e6_ms": summary(sorts + shows + filters + ranges),
        "sort_1e6_by": {
            "order": summary(sorts),
            "labels": summary(shows),
            "id": summary(filters),
            "score": summary(ranges),
        },
        "sort_1e6_other_ms": {name: summary(times) for name, times in others.items()},
        "sort_1e6_kernel_ms": summary(kernel),
        "filter_1e6_kernel_ms": summary(filtered),
        "page_1e6_ms": summary(turns),
        "key_kept_1e6_ms": summary([kept for _, kept in keys]),
    }


def _key(k: int) -> tuple[int, str, str]:
    return (k % _TILES, "a", "anomaly") if k % 2 else (k % _TILES, "n", "normal")


def summary(times: list[float]) -> dict[str, float]:
    """Return the median, the longest and the number of some times."""
    return {"median": round(statistics.median(times), 1), "max": round(max(times), 1), "n": len(times)}


if __name__ == "__main__":
    main()
