"""Take the pictures of the dashboard for README.md: a real hunt in a real JupyterLab.

The truth of the demo sky (or a table of classes) stands in for the person: the embeddings are made,
pages are labelled by keys, two cycles are trained, and a third page is half labelled while a third
cycle trains.

    python benchmarks/screenshots.py --out docs
    python benchmarks/screenshots.py --images ../shared/data/galaxyzoo1 --anomaly edge_on --out shots \
        --views dashboard detail map history labelling keys images similar mixed second-look parts report \
        banner --widths 1024 1280 1920 2560

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
_VIEWS = (
    *("dashboard", "detail", "map", "history", "labelling", "keys", "images"),
    *("similar", "mixed", "second-look", "parts", "report", "banner"),
)
_KNOWN = 3  # examples that a person begins with
_PARTS = "import ipywidgets\nipywidgets.HBox([am.Gallery(session), am.Plots(session)])"
_BUSY_MS = 600_000
# What is clicked or pressed, what then comes, and what closes it.
_OPENED = {
    "detail": (("Home", "Enter"), '.amw-detail[data-shown="yes"]', ".amw-d-close"),
    "map": ((".amw-side-map",), '.amw-map:not([data-drawn="0"])', ".amw-side-plots"),
    "history": ((".amw-past-toggle",), ".amw-past", ".amw-past-toggle"),
    "labelling": (
        ("Shift+ArrowRight", "Shift+ArrowDown", "f", "Escape", "t"),
        ".amw-tagging",
        ".amw-tags-done",
    ),
    "keys": (("?",), ".amw-help", ".amw-help .amw-x"),
    "images": ((".amw-pre-toggle",), ":nth-match(.amw-pre-image img, 14)", ".amw-pre-toggle"),
    "similar": (("Home", "m"), ".amw-similar-to", ".amw-back"),
}


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
        examples = dict.fromkeys(_examples(arguments), "anomaly")
        source, labels = f"source = am.open_source({folder!r})", f", labels={examples!r}"
    return [f"import amatch_widgets as am\n{source}\nsession = am.Session(source{labels})", "session", _PARTS]


def _examples(arguments: argparse.Namespace) -> list[str]:
    classes = _classes(arguments)
    return [name for name in classes if classes[name] == arguments.anomaly][:_KNOWN]


def _truth(notebook: Any, arguments: argparse.Namespace) -> dict[str, bool]:
    if arguments.images is None:
        kinds = notebook.ask("import json; print(json.dumps(dict(source.truth)))")
        return {image_id: kind == "anomaly" for image_id, kind in json.loads(kinds).items()}
    return {name: kind == arguments.anomaly for name, kind in _classes(arguments).items()}


def _classes(arguments: argparse.Namespace) -> dict[str, str]:
    with (arguments.images / "classes.csv").open(newline="") as file:
        return {row["filename"]: row["class"] for row in csv.DictReader(file)}


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
    for view in sorted(arguments.views, key=_VIEWS.index):  # after a restart nothing else can be shown
        if view == "report":
            written += _shoot_report(notebook, page, arguments)
            continue
        close = _open(notebook, page, view)
        for width in arguments.widths:
            page.set_viewport_size({"width": width, "height": _WIDTHS[width]})
            # The audit stands last.
            y = "e.scrollHeight" if view == "mixed" else "0"
            page.eval_on_selector(".amw-scroll", f"e => e.scrollTo(0, {y})")
            for theme in ("dark", "light"):
                notebook.theme(theme)
                root = ".amw-alone" if view == "parts" else ".amw-root"
                # These stand above the gallery.
                block = "start" if view in {"images", "history", "parts", "banner"} else "end"
                page.eval_on_selector(root, "(e, block) => e.scrollIntoView({ block })", block)
                path = arguments.out / _name(view, theme, width)
                page.screenshot(path=path)
                written.append(path)
        close()
    return written


def _shoot_report(notebook: Any, page: Any, arguments: argparse.Namespace) -> list[Path]:
    """Write the report of the hunt, and take its beginning."""
    report = Path(notebook.ask("print(session.report())"))
    written = []
    for theme in ("dark", "light"):
        context = page.context.browser.new_context(color_scheme=theme)
        sheet = context.new_page()
        sheet.goto(report.as_uri())
        for width in arguments.widths:
            sheet.set_viewport_size({"width": width, "height": _WIDTHS[width]})
            written.append(arguments.out / _name("report", theme, width))
            sheet.screenshot(path=written[-1])
        context.close()
    return written


def _name(view: str, theme: str, width: int) -> str:
    return view + ("-light" if theme == "light" else "") + (f"-{width}" if width != 1280 else "") + ".png"


def _open(notebook: Any, page: Any, view: str) -> Callable[[], object]:
    """Bring a view to the screen, as a person would; return what closes it."""
    if view in {"mixed", "second-look"}:
        return _order(page, view.replace("-", " "))
    if view == "parts":
        return _part(notebook, page)
    page.focus(".amw-gallery")
    if view in {"dashboard", "banner"}:
        if view == "banner":
            page.evaluate("() => { window.jupyterapp.commands.execute('kernelmenu:restart'); }")
            page.click(".jp-Dialog .jp-mod-accept")
            page.wait_for_selector(".amw-dead")
        return lambda: None
    acts, comes, closes = _OPENED[view]
    for act in acts:
        page.click(act) if act.startswith(".") else page.keyboard.press(act)
    page.wait_for_selector(comes)
    if view == "detail":
        page.keyboard.press("w")
        page.wait_for_selector(".amw-d-heat img", timeout=_BUSY_MS)
        # It goes when the fine map has come in place of the coarse one.
        page.wait_for_selector(".amw-d-why [role=status]", state="detached", timeout=_BUSY_MS)
    elif view == "similar":
        _wait_images(page)
    return lambda: page.click(closes)


def _order(page: Any, sort: str) -> Callable[[], object]:
    """Choose an order; return what goes back to the highest scores."""

    def choose(selector: str, value: str) -> None:
        serial = page.get_attribute(".amw-gallery", "data-serial")
        page.select_option(selector, value)
        page.wait_for_function(
            "old => document.querySelector('.amw-gallery').dataset.serial !== old", arg=serial
        )

    def close() -> None:
        choose(".amw-sort", "highest")

    choose(".amw-sort", sort)
    _wait_images(page)
    return close


def _part(notebook: Any, page: Any) -> Callable[[], object]:
    """Show parts of the dashboard in an order of the user's own; return what takes them away."""
    notebook.run(2)
    page.wait_for_selector(".amw-alone .amw-tile img")
    return lambda: page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-cell-output')")


def _wait_images(page: Any) -> None:
    page.wait_for_function(
        "document.querySelectorAll('.amw-tile img').length === document.querySelectorAll('.amw-tile').length"
    )


def _wait_text(page: Any, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).textContent.includes(text)",
        arg=[selector, text],
        timeout=_BUSY_MS,
    )


if __name__ == "__main__":
    main()
