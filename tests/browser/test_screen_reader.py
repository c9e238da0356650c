"""What a screen reader finds, by roles and names, in a real JupyterLab."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.helper import show, tile, titles, wait_label


def described(page):
    """The name of the tile that the gallery's focus is on."""
    active = page.get_attribute(".amw-gallery", "aria-activedescendant")
    return page.locator(f"#{active}").get_attribute("aria-label")


def controlled(page, button):
    """The part of the page that a button opens or shows."""
    return page.locator(f"#{button.get_attribute('aria-controls')}")


def test_the_main_parts_have_roles_and_names(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    gallery = page.get_by_role("application", name="Gallery")
    tiles = page.get_by_role("listbox", name="Images to label")
    expect(gallery).to_be_visible()
    expect(tiles.get_by_role("option")).to_have_count(48)
    expect(tiles.get_by_role("option").first).to_have_attribute("aria-setsize", "350")
    labelling = page.get_by_role("toolbar", name="Labelling")
    for name in ("Anomaly", "Normal", "Clear the label", "Star", "Tags and note", "Undo", "Redo"):
        expect(labelling.get_by_role("button", name=name, exact=True)).to_be_visible()
    for name in ("Order of the list", "Which images", "Tiles a page"):
        expect(page.get_by_role("combobox", name=name)).to_be_visible()
    for name in ("Previous page", "Next page"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    expect(page.get_by_role("textbox", name="Annotator")).to_be_visible()
    page.wait_for_selector(".amw-train:enabled")
    expect(page.get_by_role("progressbar", name="Progress of the job")).to_have_attribute(
        "aria-valuemin", "0"
    )

    for name in ("Images", "History"):
        toggle = page.get_by_role("button", name=name, exact=True)
        assert toggle.get_attribute("aria-controls") is None, "there is nothing yet that it could control"
        toggle.click()
        expect(toggle).to_have_attribute("aria-expanded", "true")
        expect(controlled(page, toggle).get_by_role("region")).to_be_visible()
        toggle.click()
        expect(toggle).to_have_attribute("aria-expanded", "false")

    tabs = page.get_by_role("tablist", name="Plots or map").get_by_role("tab")
    plots, map_tab = tabs.nth(0), tabs.nth(1)
    panels = page.locator(".amw-root").get_by_role("tabpanel")  # JupyterLab has its own
    expect(panels).to_have_count(1)  # what is not shown is not told of
    expect(page.get_by_role("tabpanel", name="Plots")).to_be_visible()
    first = described(page)
    plots.focus()
    page.keyboard.press("ArrowRight")
    expect(map_tab).to_be_focused()
    assert described(page) == first, "the arrow was to be the tabs' alone"
    assert [tabs.nth(k).get_attribute("aria-selected") for k in (0, 1)] == ["false", "true"]
    assert [tabs.nth(k).get_attribute("tabindex") for k in (0, 1)] == ["-1", "0"]
    expect(page.get_by_role("tabpanel", name="Map")).to_be_visible()
    expect(controlled(page, map_tab)).to_have_attribute("role", "tabpanel")
    expect(
        page.get_by_role("img", name=re.compile("^Map of 400 of 400 images.* 48 on the page"))
    ).to_be_visible()
    tiles.get_by_role("option").nth(2).click()
    page.keyboard.press("Enter")
    expect(page.get_by_role("application", name=f"Closeup of {titles(page)[2]}")).to_be_visible()
    expect(page.get_by_role("group", name="Star, tags and note")).to_be_visible()


def test_the_cursor_and_what_is_kept_are_told(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    told = page.get_by_role("status").and_(page.locator(".amw-gallery .amw-said"))
    tile(page, 0).locator(".amw-image").click()
    assert described(page) == f"{ids[0]}, no label"
    page.keyboard.press("ArrowRight")
    assert described(page) == f"{ids[1]}, no label"
    expect(told).to_have_text("")
    page.keyboard.press("a")
    expect(told).to_have_text(f"{ids[1]}: anomaly, kept")
    wait_label(page, 1, "anomaly")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("s")
    page.wait_for_selector('.amw-tile[data-index="1"][data-starred="yes"]')
    assert described(page).startswith(f"{ids[1]}, anomaly, starred")
    expect(told).to_have_text(f"{ids[1]}: starred, kept")
    page.keyboard.press("Shift+ArrowRight")
    tiles = page.get_by_role("listbox", name="Images to label")
    expect(tiles.get_by_role("option", selected=True)).to_have_count(2)
    page.keyboard.press("n")
    expect(told).to_have_text("2 images: normal, kept")
    page.keyboard.press("z")
    expect(told).to_have_text("taken back")

    # What is not on disk is not told to be.
    nb.ask(
        "from amatch_widgets.errors import JournalError\n"
        "def full(*args, **kwargs):\n"
        "    raise JournalError('No space is left on the disk.')\n"
        "session.label = full"
    )
    page.keyboard.press("a")
    expect(told).to_have_text(re.compile("anomaly, not kept"))
    expect(page.get_by_role("log", name="Messages")).to_contain_text("No space is left")
