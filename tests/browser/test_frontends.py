"""The dashboard in Notebook 7 and in Voila: it is drawn, keeps a label, and turns the page."""

from __future__ import annotations

import json

import pytest
from amatch_lab import Voila


@pytest.fixture
def page(browser):
    errors = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(error.stack or str(error)))
    yield page
    context.close()
    # Notebook 7.6 itself meets one while it loads its settings; ours would be in an extension's file.
    assert not [e for e in errors if "/static/notebook/" not in e], "errors in the browser"


@pytest.fixture(scope="session")
def voila(lab):
    pytest.importorskip("voila", reason="voila is not installed")
    voila = Voila(lab)
    yield voila
    voila.close()


def label_and_turn(page, tmp_path):
    """Do what a hunt is made of, and see that it is on disk."""
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 48")
    page.wait_for_selector(".amw-chart")
    assert page.locator(".amw-chart").count() == 5
    boxes = [page.locator(part).bounding_box() for part in (".amw-left", ".amw-right")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    titles = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
    page.click('.amw-tile[data-index="0"] .amw-image')
    page.keyboard.press("a")
    page.wait_for_selector('.amw-tile[data-index="0"][data-label="anomaly"][data-kept="yes"]')
    lines = (tmp_path / "run" / "labels.jsonl").read_text().splitlines()
    labels = {r["id"]: r["label"] for r in map(json.loads, lines) if "id" in r}
    assert labels[titles[0]] == "anomaly"
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('2')")
    assert page.locator(".amw-tile").first.get_attribute("title") not in titles
    assert not page.locator(".amw-dead").count()


def test_dashboard_works_in_notebook_7(lab, page, sky, tmp_path):
    pytest.importorskip("notebook", reason="notebook is not installed")
    lab.write("seven.ipynb", sky)
    page.goto(f"{lab.url}/notebooks/seven.ipynb?token={lab.token}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell")
    page.evaluate(
        """async () => {
            const panel = window.jupyterapp.shell.currentWidget;
            await panel.context.ready;
            await panel.sessionContext.ready;
            await panel.sessionContext.session.kernel.info;
            await window.jupyterapp.commands.execute('notebook:run-all-cells');
        }"""
    )
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
    before = page.evaluate(cells)
    label_and_turn(page, tmp_path)
    for key in ("b", "x", "d", "d"):  # they insert and cut cells in the command mode
        page.keyboard.press(key)
    assert page.evaluate(cells) == before
    lab.stop_kernels()


def test_dashboard_works_in_voila(voila, page, sky, tmp_path):
    page.goto(voila.show("app.ipynb", sky))
    label_and_turn(page, tmp_path)
