"""The buttons of the action bar do what their keys do, in a real JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.helper import labels, records, show, tile, titles, wait_label


def select(page, first, last):
    tile(page, first).locator(".amw-image").click()
    tile(page, last).locator(".amw-image").click(modifiers=["Shift"])
    expect(page.locator(".amw-target")).to_have_text(f"{last - first + 1} selected")


def test_each_button_of_the_bar_acts_on_what_is_selected_and_the_keys_stay_the_gallerys(
    notebook, sky, tmp_path
):
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    ids = titles(page)

    # One image: the one of the cursor.
    tile(page, 2).locator(".amw-image").click()
    for button, label in (("a", "anomaly"), ("n", "normal"), ("c", ""), ("a", "anomaly")):
        page.click(f".amw-all-{button}")
        wait_label(page, 2, label)
        assert (labels(tmp_path)[ids[2]] or "") == label
    page.click(".amw-all-s")
    page.wait_for_selector('.amw-tile[data-index="2"][data-starred="yes"]')

    # Several: one action, taken back and done again as one.
    select(page, 4, 6)
    n = len(records(tmp_path))
    page.click(".amw-all-n")
    wait_label(page, 6, "normal")
    new = records(tmp_path)[n:]
    assert [(r["id"], r["label"]) for r in new] == [(i, "normal") for i in ids[4:7]]
    assert len({r["action"] for r in new}) == 1
    page.click(".amw-undo")
    for k in (4, 5, 6):
        wait_label(page, k, "")
    page.click(".amw-redo")
    for k in (4, 5, 6):
        wait_label(page, k, "normal")
    expect(page.locator(".amw-redo")).to_be_disabled()

    select(page, 4, 5)
    page.click(".amw-all-t")
    page.wait_for_function("document.activeElement.matches('.amw-tag')")
    page.keyboard.type("ring")
    page.keyboard.press("Enter")
    expect(page.locator(".amw-chip")).to_contain_text("ring")
    page.click(".amw-tags-done")
    expect(page.locator(".amw-tagging")).to_have_count(0)
    tags = {r["id"]: r["tags"] for r in records(tmp_path)}
    assert [tags[i] for i in ids[4:7]] == [["ring"], ["ring"], []]

    # The rest of the page; what has a label keeps it.
    page.click(".amw-rest")
    wait_label(page, 47, "normal")
    wait_label(page, 2, "anomaly")
    expect(page.locator(".amw-rest")).to_be_disabled()
    assert [labels(tmp_path)[i] for i in ids] == ["normal" if k != 2 else "anomaly" for k in range(48)]
    page.click(".amw-undo")
    wait_label(page, 47, "")
    wait_label(page, 4, "normal")

    # What opens and shuts.
    for button, part, again in (
        (".amw-filter-toggle", ".amw-filter", ".amw-filter-toggle"),
        (".amw-help-toggle", ".amw-help", ".amw-help .amw-x"),  # which lies over the button
    ):
        page.click(button)
        page.wait_for_selector(part)
        assert page.get_attribute(button, "aria-expanded") == "true"
        page.click(again)
        page.wait_for_selector(part, state="detached")
        assert page.get_attribute(button, "aria-expanded") == "false"
    assert page.evaluate("document.activeElement.className") == "amw-gallery"
    assert nb.cells() == before
