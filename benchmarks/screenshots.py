"""Take the pictures of the dashboard for README.md: a real hunt in a real JupyterLab.

The truth of the demo sky (or a table of classes) stands in for the person: the embeddings are made,
pages are labelled by keys, two cycles are trained, and a third page is half labelled while a third
cycle trains.

    python benchmarks/screenshots.py --out docs
    python benchmarks/screenshots.py --images ../shared/data/galaxyzoo1 --anomaly edge_on --out shots \
        --views dashboard detail map history labelling keys images --widths 1024 1280 1920 2560

Writes a picture of each view, e.g. dashboard.png (dark) and dashboard-light.png; those of other widths
than 1280 px have it in their names, e.g. detail-light-1920.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright
from report import ROOT, lab_driver, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

_WIDTHS = {1024: 768, 1280: 860, 1920: 1080, 2560: 1440}  # and the heights of such screens
_VIEWS = ("dashboard", "detail", "map", "history", "labelling", "keys", "images")
_BUSY_MS = 600_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for the pictures")
    parser.add_argument("--images", type=Path, help="folder with images/ and classes.csv; else the demo sky")
    parser.add_argument("--anomaly", default="merger", help="class in classes.csv that is searched for")
    parser.add_argument("--n", type=int, default=3_000, help="images of the demo sky")
    parser.add_argument("--steps", type=int, default=25, help="training steps of a cycle")
    parser.add_argument("--views", nargs="+", choices=_VIEWS, default=["dashboard", "detail"])
    parser.add_argument("--widths", nargs="+", type=int, choices=list(_WIDTHS), default=[1280], help="px")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    written = hunt(arguments)
    for path in written:
        print(path)
    if arguments.json:
        result = {"benchmark": "screenshots", "files": [path.name for path in written], "seed": 0}
        print(json.dumps(result | {"seconds": round(time.perf_counter() - start, 1), **provenance()}))


def hunt(arguments: argparse.Namespace) -> list[Path]:
    """Hunt in the browser and return the pictures that were written."""
    lab_module = lab_driver()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        lab = lab_module.Lab(Path(scratch, "lab"))
        browser = playwright.chromium.launch(
            executable_path=lab_module.chromium(), args=lab_module.CHROMIUM_ARGS
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": _WIDTHS[1280]})
            notebook = lab_module.Notebook(lab, page, _cells(arguments), theme="dark", name="hunt")
            notebook.run(0)
            if problem := notebook.output(0):
                raise RuntimeError(problem)
            notebook.run(1)
            page.wait_for_selector(".amw-tile img")
            truth = _truth(notebook, arguments)
            page.wait_for_selector(".amw-train:enabled", timeout=_BUSY_MS)  # the embeddings are there
            _refresh(page)
            for n_labels in (48, 24):
                _label(page, truth, n_labels)
                page.fill(".amw-steps", str(arguments.steps))
                page.click(".amw-train")
                _wait_text(page, ".amw-progress-text", "step")
                page.wait_for_selector(".amw-train:enabled", timeout=_BUSY_MS)
                _refresh(page)
            page.click(".amw-train")
            _wait_text(page, ".amw-progress-text", "step")
            _label(page, truth, 14)
            return _shoot(notebook, page, arguments)
        finally:
            browser.close()
            lab.close()


def _cells(arguments: argparse.Namespace) -> list[str]:
    if arguments.images is None:
        source = f"source = am.demo.sky({arguments.n:_}, seed=0)"
        labels = ", labels=source.first_labels()"
    else:
        folder = str((arguments.images / "images").resolve())
        source, labels = f"source = am.open_source({folder!r})", ""
    return [f"import amatch_widgets as am\n{source}\nsession = am.Session(source{labels})", "session"]


def _truth(notebook: Any, arguments: argparse.Namespace) -> dict[str, bool]:
    if arguments.images is None:
        kinds = notebook.ask("import json; print(json.dumps(dict(source.truth)))")
        return {image_id: kind == "anomaly" for image_id, kind in json.loads(kinds).items()}
    with (arguments.images / "classes.csv").open(newline="") as file:
        return {row["filename"]: row["class"] == arguments.anomaly for row in csv.DictReader(file)}


def _label(page: Any, truth: dict[str, bool], n: int) -> None:
    """Label the first `n` tiles by keys, as a person would."""
    titles = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")[:n]
    page.click('.amw-tile[data-index="0"] .amw-image')
    for title in titles:
        page.keyboard.press("a" if truth[title] else "n")
    page.wait_for_function(
        "n => document.querySelectorAll('.amw-tile[data-kept=yes]:not([data-label=\"\"])').length >= n",
        arg=len(titles),
    )


def _refresh(page: Any) -> None:
    serial = page.get_attribute(".amw-gallery", "data-serial")
    page.click(".amw-refresh")
    page.wait_for_function("old => document.querySelector('.amw-gallery').dataset.serial !== old", arg=serial)
    page.wait_for_selector(".amw-tile .amw-score")


def _shoot(notebook: Any, page: Any, arguments: argparse.Namespace) -> list[Path]:
    written = []
    for view in arguments.views:
        close = _open(page, view)
        for width in arguments.widths:
            page.set_viewport_size({"width": width, "height": _WIDTHS[width]})
            page.eval_on_selector(".amw-scroll", "e => e.scrollTo(0, 0)")
            for theme in ("dark", "light"):
                notebook.theme(theme)
                block = "start" if view == "images" else "end"  # it stands above the gallery
                page.eval_on_selector(".amw-root", "(e, block) => e.scrollIntoView({ block })", block)
                name = view + ("-light" if theme == "light" else "") + (f"-{width}" if width != 1280 else "")
                path = arguments.out / f"{name}.png"
                page.screenshot(path=path)
                written.append(path)
        close()
    return written


def _open(page: Any, view: str) -> Callable[[], object]:
    """Bring a view to the screen, as a person would; return what closes it."""
    page.focus(".amw-gallery")
    close = ""
    if view == "detail":
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        page.wait_for_selector('.amw-detail[data-shown="yes"]')
        page.keyboard.press("w")
        page.wait_for_selector(".amw-d-heat img", timeout=_BUSY_MS)
        close = ".amw-d-close"
    elif view == "map":
        page.click(".amw-side-map")
        page.wait_for_selector('.amw-map:not([data-drawn="0"])')
        close = ".amw-side-plots"
    elif view == "history":
        page.click(".amw-past-toggle")
        page.wait_for_selector(".amw-past")
        close = ".amw-past-toggle"
    elif view == "labelling":
        for key in ("Shift+ArrowRight", "Shift+ArrowDown", "f", "Escape", "t"):
            page.keyboard.press(key)
        close = ".amw-tags-done"
    elif view == "keys":
        page.keyboard.press("?")
        close = ".amw-help .amw-x"
    elif view == "images":
        page.click(".amw-pre-toggle")
        page.wait_for_function("document.querySelectorAll('.amw-pre-image img').length === 14")
        close = ".amw-pre-toggle"
    return lambda: page.click(close) if close else None


def _wait_text(page: Any, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).textContent.includes(text)",
        arg=[selector, text],
        timeout=_BUSY_MS,
    )


if __name__ == "__main__":
    main()
