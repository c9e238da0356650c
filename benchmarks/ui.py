"""How quickly the dashboard answers, in a real JupyterLab with headless Chromium.

Measures, on the galaxy images of ../shared where they are and on the demo sky elsewhere:

import_s          `import amatch_widgets` in a fresh process
dashboard_s       from running the cell (imports done) to 48 images on screen
page_ms           from the click on "next page" to all 48 new images on screen
key_idle_ms       from a label key to the new state of its tile
key_kept_idle_ms  the same to the confirmation that the label is on disk
key_training_ms, key_kept_training_ms   both while FixMatch trains on all cores

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

from playwright.sync_api import sync_playwright
from report import ROOT, lab_driver, provenance

_TILES = 48

# All times are taken in the browser, so that the driver's own delay is not in them. A state counts
# as on screen in the first frame after it holds.
_WAIT = """
const soon = () => new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
});
const frame = () => new Promise((done) => requestAnimationFrame(done));
const until = async (holds) => {
    const end = performance.now() + 30000;
    while (!holds()) {
        if (performance.now() > end) throw new Error("the state did not come within 30 s");
        await soon();
    }
};
const tiles = () => [...document.querySelectorAll(".amw-tile")];
const shown = (n) => {
    const images = [...document.querySelectorAll(".amw-tile img")];
    return images.length === n && images.every((image) => image.complete && image.naturalWidth > 0);
};
"""
_RUN_CELL = (
    "async (n) => {"
    + _WAIT
    + """
    const panel = window.jupyterapp.shell.currentWidget;
    panel.content.activeCellIndex = 1;
    const start = performance.now();
    window.jupyterapp.commands.execute("notebook:run-cell");
    await until(() => shown(n));
    await frame();
    return (performance.now() - start) / 1000;
}"""
)
_TURN = (
    "async (n) => {"
    + _WAIT
    + """
    const before = tiles()[0].title;
    const start = performance.now();
    document.querySelector(".amw-next").click();
    await until(() => tiles().length && tiles()[0].title !== before && shown(n));
    await frame();
    return performance.now() - start;
}"""
)
_KEY = (
    "async ([index, key, label]) => {"
    + _WAIT
    + """
    const root = document.querySelector(".amw-gallery");
    root.focus();
    tiles()[index].click();
    await frame();
    const start = performance.now();
    root.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    await until(() => tiles()[index].dataset.label === label);
    await frame();
    const seen = performance.now() - start;
    await until(() => tiles()[index].dataset.kept === "yes");
    await frame();
    return [seen, performance.now() - start];
}"""
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="page turns and keys that each median is of")
    parser.add_argument(
        "--images", type=Path, default=ROOT.parent / "shared" / "data" / "galaxyzoo1" / "images"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    source = str(arguments.images) if arguments.images.is_dir() else "am.demo.sky(20_000, seed=0)"
    figures = {"import_s": import_s()} | dashboard(source, arguments.repeats)
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{name}: median {value['median']:.1f}, longest {value['max']:.1f} of {value['n']}")
        else:
            print(f"{name}: {value:.2f}")
    if arguments.json:
        print(
            json.dumps(
                {"benchmark": "ui", "seeds": [0], "source": Path(source).name, **figures, **provenance()}
            )
        )


def import_s() -> float:
    """Return the median time of `import amatch_widgets` over 5 fresh processes, s."""
    code = "import time; t = time.perf_counter(); import amatch_widgets; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def dashboard(source: str, repeats: int) -> dict[str, Any]:
    """Return the figures of the dashboard; times in ms but for `dashboard_s`."""
    lab_module = lab_driver()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        lab = lab_module.Lab(Path(scratch, "lab"))
        browser = playwright.chromium.launch(
            executable_path=lab_module.chromium(), args=lab_module.CHROMIUM_ARGS
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            notebook = lab_module.Notebook(lab, page, _cells(source, Path(scratch, "run")))
            notebook.run(0)
            problem = notebook.output(0)
            if problem:
                raise RuntimeError(problem)
            return _measure(notebook, page, repeats)
        finally:
            browser.close()
            lab.close()


def _cells(source: str, run: Path) -> list[str]:
    opened = source if source.startswith("am.") else f"am.open_source({source!r})"
    return [
        (
            "import amatch_widgets as am\nimport amatch_widgets.widgets\n"
            f"session = am.Session({opened}, path={str(run)!r})\n"
            "first = session.source.ids[:50]\n"
            "session.label({i: 'anomaly' if k < 5 else 'normal' for k, i in enumerate(first)})"
        ),
        "session",
    ]


def _measure(notebook: Any, page: Any, repeats: int) -> dict[str, Any]:
    dashboard_s = page.evaluate(_RUN_CELL, _TILES)
    turns = [page.evaluate(_TURN, _TILES) for _ in range(repeats)]
    idle = [page.evaluate(_KEY, _key(k)) for k in range(repeats)]
    notebook.ask("session.train(5000)")
    while int(notebook.ask("print(session.step)")) < 3:  # torch is imported and warm by then
        pass
    page.evaluate(_TURN, _TILES)
    training = [page.evaluate(_KEY, _key(k)) for k in range(repeats)]
    turns_training = [page.evaluate(_TURN, _TILES) for _ in range(repeats)]
    steps = int(notebook.ask("print(session.step)"))
    notebook.ask("session.stop(); session.wait(); session.close()")
    return {
        "dashboard_s": dashboard_s,
        "page_ms": _summary(turns),
        "page_training_ms": _summary(turns_training),
        "key_idle_ms": _summary([seen for seen, _ in idle]),
        "key_kept_idle_ms": _summary([kept for _, kept in idle]),
        "key_training_ms": _summary([seen for seen, _ in training]),
        "key_kept_training_ms": _summary([kept for _, kept in training]),
        "steps_trained_meanwhile": steps,
    }


def _key(k: int) -> tuple[int, str, str]:
    return (k % _TILES, "a", "anomaly") if k % 2 else (k % _TILES, "n", "normal")


def _summary(times: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(times), 1), "max": round(max(times), 1), "n": len(times)}


if __name__ == "__main__":
    main()
