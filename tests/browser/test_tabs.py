"""One session in two tabs, and after a reload of a notebook that was never saved."""

from __future__ import annotations

import copy

from tests.browser.helper import show

KEPT = '.amw-tile[data-index="{}"][data-label="{}"][data-kept="yes"]'


def test_an_unsaved_notebook_shows_its_session_again_after_a_reload(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    page.click('.amw-tile[data-index="5"] .amw-a')
    page.wait_for_selector(KEPT.format(5, "anomaly"))
    title = page.locator(".amw-tile").nth(5).get_attribute("title")
    nb.open()
    nb.run(1)
    page.wait_for_selector(".amw-tile img")
    page.select_option(".amw-sort", "recent")  # what is labelled is not in the list of the unlabelled
    page.wait_for_function("t => document.querySelector('.amw-tile').title === t", arg=title)
    page.wait_for_selector(KEPT.format(0, "anomaly"))
    page.click('.amw-tile[data-index="0"] .amw-n')
    page.wait_for_selector(KEPT.format(0, "normal"))


def test_a_second_tab_follows_the_labels_and_stars_of_the_first(notebook, sky):
    first = show(notebook, sky)
    # Once the images are embedded, a list made anew stays as it is: both tabs then have the same one.
    first.page.wait_for_selector(".amw-train:enabled")
    first.page.click(".amw-refresh")
    first.page.wait_for_selector(".amw-tile .amw-score")
    second = copy.copy(first)
    second.page = first.page.context.new_page()
    second.page.set_default_timeout(60_000)
    second.open()
    second.run(1)
    second.page.wait_for_selector(".amw-tile img")
    titles = [nb.page.locator(".amw-tile").nth(2).get_attribute("title") for nb in (first, second)]
    assert titles[0] == titles[1]
    first.page.click('.amw-tile[data-index="2"] .amw-image')
    first.page.keyboard.press("s")
    second.page.wait_for_selector('.amw-tile[data-index="2"][data-starred="yes"]')
    first.page.click('.amw-tile[data-index="2"] .amw-a')
    second.page.wait_for_selector(KEPT.format(2, "anomaly"))
    second.page.click('.amw-tile[data-index="2"] .amw-n')
    first.page.wait_for_selector(KEPT.format(2, "normal"))
