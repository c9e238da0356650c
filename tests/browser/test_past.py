"""The history panel under the user's hands, in a real JupyterLab."""

from __future__ import annotations

from tests.browser.helper import labels

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><b>{{ 1 + 1 }}</b>"


def rows(page, part):
    return page.eval_on_selector_all(f".amw-past-row {part}", "all => all.map(e => e.textContent.trim())")


def first_is(page, image_id):
    page.wait_for_function(
        "id => document.querySelector('.amw-past-row .amw-past-id').textContent === id", arg=image_id
    )


def test_the_history_lists_changes_and_leads_to_images(notebook, sky, tmp_path):
    nb = notebook(sky)
    nb.run(0)
    nb.run(1)
    page = nb.page
    page.wait_for_selector(".amw-tile img")
    before = nb.cells()
    ids = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
    nb.ask(
        f"session.label({{{ids[3]!r}: 'anomaly'}}, by='<i>ann</i>', note={HOSTILE!r}, tags=['<u>tag</u>'])"
    )
    page.click(".amw-past-toggle")
    page.wait_for_selector(".amw-past-row")
    first_is(page, ids[3])
    assert page.locator(".amw-past-toggle").get_attribute("aria-expanded") == "true"
    assert "<i>ann</i>" in rows(page, ".amw-past-who")[0]
    assert f"note: {HOSTILE}" in rows(page, ".amw-past-what")[0]
    assert not page.locator(".amw-past-row img, .amw-past-row u").count()
    assert page.title() != "hacked"

    # What is said in the gallery stands at the top at once.
    page.click('.amw-tile[data-index="5"] .amw-image')
    page.keyboard.press("n")
    first_is(page, ids[5])
    assert rows(page, ".amw-past-what")[0] == "● normal"
    n = len(rows(page, ".amw-past-id"))

    # Filter, go, change.
    page.fill(".amw-past-text", ids[3])
    page.wait_for_function("document.querySelectorAll('.amw-past-row').length === 1")
    page.click(".amw-past-row .amw-past-id")
    page.wait_for_selector(f'.amw-cursor[title="{ids[3]}"]')
    page.click(".amw-past-row button.amw-past-normal")
    page.wait_for_function("document.querySelectorAll('.amw-past-row').length === 2")
    page.wait_for_selector(f'.amw-tile[title="{ids[3]}"][data-label="normal"]')
    assert labels(tmp_path)[ids[3]] == "normal"
    page.fill(".amw-past-text", "")
    page.wait_for_function("n => document.querySelectorAll('.amw-past-row').length === n", arg=n + 1)

    # An image that is not listed is shown among all.
    given = page.locator(".amw-past-row").last
    title = given.locator(".amw-past-id").inner_text()
    given.click()
    page.wait_for_selector(f'.amw-cursor[title="{title}"]')
    assert page.input_value(".amw-show") == "all"

    # Closed, it asks for nothing more; and no key has reached JupyterLab.
    page.click(".amw-past-toggle")
    page.wait_for_selector(".amw-past", state="detached")
    assert nb.cells() == before
