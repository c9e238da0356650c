"""Parts of the dashboard alone, and in layouts of the user's own, in a real JupyterLab."""

from __future__ import annotations

import os
import signal

import pytest

from tests.browser.helper import labels

SIDE_BY_SIDE = "import ipywidgets\nipywidgets.HBox([am.Gallery(session), am.Plots(session)])"
KEPT = '.amw-tile[data-index="{}"][data-label="{}"][data-kept="yes"]'


def show(notebook, sky, cell, **options):
    nb = notebook([sky[0], cell], **options)
    nb.run(0)
    assert "Error" not in nb.output(0), nb.output(0)
    nb.run(1)
    assert "Error" not in nb.output(1), nb.output(1)
    return nb


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_gallery_and_plots_stand_side_by_side_and_live(notebook, sky, tmp_path, theme):
    nb = show(notebook, sky, SIDE_BY_SIDE, theme=theme)
    page = nb.page
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 48")
    page.wait_for_selector(".amw-chart")
    left, right = (page.locator(part).bounding_box() for part in (".amw-gallery", ".amw-plots"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["width"] > 1.3 * right["width"]
    assert right["width"] >= 280
    assert abs(left["y"] - right["y"]) < 12
    assert 480 <= left["height"] <= 800
    assert page.eval_on_selector(".jp-WindowedPanel-outer", "e => e.scrollWidth <= e.clientWidth + 1")
    assert page.eval_on_selector(".amw-scroll", "e => e.scrollWidth <= e.clientWidth + 1")
    colour = page.eval_on_selector(".amw-gallery .amw-button", "e => getComputedStyle(e).backgroundColor")
    assert (int(colour[4:].split(",")[0]) > 150) == (theme == "light")

    before = nb.cells()
    title = page.locator(".amw-tile").nth(0).get_attribute("title")
    looks = page.inner_text(".amw-chart-discovery")
    page.click('.amw-tile[data-index="0"] .amw-image')
    page.keyboard.press("a")
    page.wait_for_selector(KEPT.format(0, "anomaly"))
    assert labels(tmp_path)[title] == "anomaly"
    page.wait_for_function("t => document.querySelector('.amw-chart-discovery').innerText !== t", arg=looks)
    # Keys that cut, insert and change cells in JupyterLab's command mode.
    for key in ("b", "x", "d", "d", "Tab", "Shift+Tab"):
        page.keyboard.press(key)
    page.locator(".amw-plots").click()
    assert nb.cells() == before


def test_enter_opens_an_image_over_a_gallery_alone_and_the_keys_go_on(notebook, sky, tmp_path):
    nb = show(notebook, sky, "am.Gallery(session)")
    page = nb.page
    page.wait_for_selector(".amw-tile img")
    before = nb.cells()
    titles = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
    page.click('.amw-tile[data-index="1"] .amw-image')
    page.keyboard.press("Enter")
    page.wait_for_selector(f'.amw-detail[data-image="{titles[1]}"][data-shown="yes"]')
    assert page.locator(".amw-detail").bounding_box()["height"] > 400
    page.keyboard.press("n")  # the gallery labels, and the detail goes with it to the next
    page.wait_for_selector(f'.amw-detail[data-image="{titles[2]}"][data-shown="yes"]')
    page.wait_for_selector(KEPT.format(1, "normal"), state="attached")
    page.click(".amw-d-next")
    page.wait_for_selector(f'.amw-detail[data-image="{titles[3]}"]')
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    page.keyboard.press("a")
    page.wait_for_selector(KEPT.format(3, "anomaly"))
    assert {i: labels(tmp_path).get(i) for i in titles[:4]} == {
        titles[0]: None,
        titles[1]: "normal",
        titles[2]: None,
        titles[3]: "anomaly",
    }
    assert nb.cells() == before


def test_errors_are_read_in_the_part_and_controls_alone_work(notebook, sky):
    cell = "import ipywidgets\nipywidgets.VBox([am.Controls(session), am.Gallery(session)])"
    nb = show(notebook, sky, cell)
    page = nb.page
    page.wait_for_selector(".amw-tile img")
    before = nb.cells()
    page.locator(".amw-steps").fill("0")
    page.locator(".amw-train").focus()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    message = page.locator(".amw-controls .amw-message.amw-error")
    message.wait_for()
    assert "allowed are 1 to" in message.inner_text()
    message.locator(".amw-x").click()
    message.wait_for(state="detached")
    assert nb.cells() == before
    top = page.locator(".amw-tile").first.bounding_box()
    nb.ask("from amatch_widgets import events\nsession.hub.publish(events.Failed('train', 'no <b>loss</b>'))")
    page.wait_for_selector(".amw-controls .amw-message.amw-error")
    message = page.locator(".amw-gallery .amw-message.amw-error")
    message.wait_for()
    assert "no <b>loss</b>" in message.inner_text()
    page.locator(".amw-controls .amw-x").click()
    page.wait_for_selector(".amw-controls .amw-message", state="detached")
    assert page.locator(".amw-tile").first.bounding_box() == top  # a message moves no tile


def test_a_gallery_alone_says_that_the_kernel_is_gone(notebook, sky):
    nb = show(notebook, sky, "am.Gallery(session)")
    page = nb.page
    page.wait_for_selector(".amw-tile img")
    os.kill(int(nb.ask("import os; print(os.getpid())")), signal.SIGKILL)
    page.wait_for_selector(".amw-gallery .amw-dead")
