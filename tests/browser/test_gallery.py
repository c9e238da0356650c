"""The gallery under the user's hands, in a real JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.helper import labels, records, show, tile, wait_label

KEPT = '.amw-tile[data-kept="yes"]'


def test_keys_label_move_and_turn_pages_and_never_reach_jupyterlab(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    before = nb.cells()
    ids = [tile(page, k).get_attribute("title") for k in range(4)]

    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("a")
    wait_label(page, 0, "anomaly")
    assert records(tmp_path)[-1]["id"] == ids[0]
    assert "amw-cursor" in tile(page, 1).get_attribute("class")
    page.keyboard.press("n")
    page.keyboard.press("a")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("c")
    wait_label(page, 1, "normal")
    wait_label(page, 2, "")
    kept = labels(tmp_path)
    assert [kept.get(i) for i in ids] == ["anomaly", "normal", None, None]

    # The page is frozen: what was labelled is still there, in its place, and paging back shows it.
    assert [tile(page, k).get_attribute("title") for k in range(4)] == ids
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('2')")
    assert tile(page, 0).get_attribute("title") not in ids
    page.keyboard.press("PageUp")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('1')")
    wait_label(page, 0, "anomaly")
    page.keyboard.press("r")
    page.wait_for_function(
        "(id) => document.querySelector('.amw-tile[data-index=\"0\"]').title !== id", arg=ids[0]
    )
    titles = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
    assert ids[0] not in titles
    assert ids[1] not in titles

    # Keys that cut, insert and change cells in JupyterLab's command mode.
    for key in ("End", "Home", "ArrowDown", "ArrowUp", "b", "x", "m", "d", "d", "z", "1"):
        page.keyboard.press(key)
    assert nb.cells() == before
    # One Esc too many leaves the keys where they are; the next gives them to the notebook's cell.
    page.keyboard.press("Escape")
    expect(page.locator(".amw-keys")).to_contain_text("again: leave")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".amw-keys")).to_contain_text("all keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.jp-Cell')")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.querySelector('.amw-gallery')") is None


def test_buttons_orders_filters_and_sizes(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    first = tile(page, 0).get_attribute("title")
    tile(page, 0).locator(".amw-a").click()
    wait_label(page, 0, "anomaly")
    tile(page, 0).locator(".amw-n").click()
    wait_label(page, 0, "normal")
    tile(page, 0).locator(".amw-c").click()
    wait_label(page, 0, "")
    assert labels(tmp_path)[first] is None
    tile(page, 0).locator(".amw-a").click()
    wait_label(page, 0, "anomaly")

    page.select_option(".amw-sort", "recent")
    page.wait_for_function("document.querySelector('.amw-show').value === 'labelled'")
    assert tile(page, 0).get_attribute("title") == first
    assert page.locator(".amw-tile:not([data-label=''])").count() == 48
    page.select_option(".amw-per-page", "24")
    page.wait_for_function("document.querySelectorAll('.amw-tile').length === 24")
    width = tile(page, 0).bounding_box()["width"]
    page.click(".amw-size[title^='large']")
    page.wait_for_function(
        "(width) => document.querySelector('.amw-tile').getBoundingClientRect().width > 1.3 * width",
        arg=width,
    )
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 24")

    # By keys: arrows and letters choose in the open list, and label nothing.
    n_lines = len(records(tmp_path))
    for key, size in (("-", "medium"), ("-", "small"), ("+", "medium")):
        page.keyboard.press(key)
        page.wait_for_selector(f".amw-size.amw-on[title^='{size}']")
    page.keyboard.press("o")
    page.wait_for_selector(".amw-sort:open")
    for key in ("Home", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('.amw-sort').value === 'lowest'")
    page.wait_for_function("document.querySelector('.amw-show').value === 'unlabelled'")  # as before "recent"
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    page.focus(".amw-show")
    page.keyboard.press("n")
    page.wait_for_selector(".amw-show:open")
    for key in ("Escape", "Escape"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    assert page.input_value(".amw-show") == "unlabelled"
    assert len(records(tmp_path)) == n_lines


def test_a_click_is_handled_while_a_cell_is_busy(notebook, sky, tmp_path):
    busy = "board = session.show()\nboard.gallery.refresh()\ndisplay(board)\nimport time\ntime.sleep(600)"
    nb = show(notebook, [*sky, busy])
    page = nb.page
    nb.run(2, wait=False)
    page.wait_for_function("document.querySelectorAll('.amw-root').length === 2")
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 96")
    # The first dashboard and the one that the busy cell itself has made and touched.
    for k, label in ((0, "a"), (1, "n")):
        board = page.locator(".amw-root").nth(k)
        board.locator(f".amw-{label}").nth(3).click()
        name = {"a": "anomaly", "n": "normal"}[label]
        board.locator(f'.amw-tile[data-label="{name}"][data-kept="yes"]').first.wait_for(timeout=5_000)
        assert labels(tmp_path)[board.locator(".amw-tile").nth(3).get_attribute("title")] == name
    # Asked of the model: JupyterLab before 4.5 takes the prompts of cells out of sight off the page.
    counts = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.executionCount)"
    first, second, third = page.evaluate(counts)
    assert first
    assert second
    assert third is None, "the cell was to be busy still"
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")


def test_two_displays_agree_and_a_failed_label_is_taken_back(notebook, sky):
    nb = show(notebook, [*sky, "session"])
    page = nb.page
    nb.run(2)
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 96")
    boards = [page.locator(".amw-root").nth(k) for k in (0, 1)]
    boards[0].locator(".amw-a").first.click()
    kept = '.amw-tile[data-index="0"][data-label="anomaly"][data-kept="yes"]'
    for board in boards:
        board.locator(kept).wait_for()

    nb.ask(
        "from amatch_widgets.errors import JournalError\n"
        "def full(*args, **kwargs):\n"
        "    raise JournalError('The label was not kept: no space left on <b>disk</b>.')\n"
        "session.label = full"
    )
    boards[1].locator(".amw-n").first.click()
    message = boards[1].locator(".amw-message.amw-error")
    message.wait_for()
    assert "no space left on <b>disk</b>" in message.inner_text()
    boards[1].locator(kept).wait_for()
    message.locator(".amw-x").click()
    message.wait_for(state="detached")
