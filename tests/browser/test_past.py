"""The history panel under the user's hands, in a real JupyterLab."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.browser.helper import labels, show, tile

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

    walk_by_keys(page, tmp_path)
    assert nb.cells() == before


def walk_by_keys(page, tmp_path):
    """Its lines take the focus, Enter goes to an image, also past a filter, and a letter labels it."""
    page.keyboard.press("f")
    page.keyboard.type("no such id")
    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-empty")
    page.keyboard.press("h")
    page.wait_for_function("document.activeElement.matches('.amw-past-row:first-child')")
    page.keyboard.press("ArrowDown")
    title = rows(page, ".amw-past-id")[1]
    page.keyboard.press("Enter")
    page.wait_for_selector(f'.amw-cursor[title="{title}"]')
    assert page.input_value(".amw-contains") == ""
    page.keyboard.press("c")
    first_is(page, title)
    assert labels(tmp_path)[title] is None
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    page.keyboard.press("h")
    page.wait_for_selector(".amw-past", state="detached")


TWO = """
import json, shutil
from pathlib import Path
free = [i for i in source.ids if i not in session.labels]
other = session.path.with_name("of ben")
shutil.copytree(session.path, other)
with am.Session(source, path=other, annotator="ben", train=session.config) as ben:
    session.label(dict.fromkeys(free[:3], "normal"), by="ann")
    ben.label(dict.fromkeys(free[:5], "anomaly"))
print(json.dumps([str(other), free[:5]]))
"""


def test_another_annotators_labels_are_compared_merged_and_settled(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    other, ids = json.loads(nb.ask(TWO))
    page.click(".amw-past-toggle")
    page.click(".amw-merge-toggle")

    # A wrong path is told beside the form; the merge is offered once it is known what it would do.
    page.fill(".amw-merge-path", f"{other}{HOSTILE}")
    page.click(".amw-do-compare")
    problem = page.locator(".amw-merge-problem")
    problem.wait_for()
    assert f"There are no labels to merge in {other + HOSTILE!r}" in problem.inner_text()
    assert not page.locator(".amw-do-merge").count()
    page.fill(".amw-merge-path", other)
    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-merge-words:has-text('To take over: 2 labels, 2 ◆ anomaly.')")
    assert labels(tmp_path).get(ids[4]) is None
    assert problem.count() == 0

    page.click(".amw-do-merge")
    page.wait_for_selector(".amw-merge-words:has-text('Taken over: 2 labels')")
    assert [labels(tmp_path)[i] for i in ids] == ["normal"] * 3 + ["anomaly"] * 2
    page.wait_for_selector(".amw-do-merge", state="detached")
    rows = page.locator(".amw-merge-row")
    assert [rows.nth(k).locator(".amw-merge-id").inner_text() for k in range(3)] == ids[:3]
    assert "normal ann" in rows.nth(0).locator(".amw-merge-mine").inner_text()
    assert "anomaly ben" in rows.nth(0).locator(".amw-merge-theirs").inner_text()

    # Settled by theirs, by ours, and by labelling the image, to which its row leads.
    rows.nth(0).locator(".amw-take-theirs").click()
    page.wait_for_selector('.amw-merge-row[data-state="theirs"]')
    assert labels(tmp_path)[ids[0]] == "anomaly"
    rows.nth(1).locator(".amw-keep-mine").click()
    page.wait_for_selector('.amw-merge-row[data-state="mine"]')
    rows.nth(2).locator(".amw-merge-id").click()
    page.wait_for_selector(f'.amw-cursor[title="{ids[2]}"]')
    assert page.inner_text(".amw-similar-to") == "Disagreements with of ben"
    assert page.locator(".amw-tile").count() == 3
    page.locator(f'.amw-tile[title="{ids[2]}"] .amw-c').click()
    page.wait_for_selector('.amw-merge-row[data-state="neither"]')
    assert page.inner_text(".amw-merge-head b") == "0 of 3 disagreements open"

    # Three undos: of the label, of theirs, and of the whole merge.
    tile(page, 0).locator(".amw-image").click()
    for _ in range(3):
        page.keyboard.press("z")
    page.wait_for_function("document.querySelector('.amw-merge-head b').textContent.startsWith('2 of 3')")
    page.wait_for_selector(".amw-message-text:has-text('Undone')")
    assert [labels(tmp_path)[i] for i in ids] == ["normal"] * 3 + [None] * 2
    assert page.title() != "hacked"


def test_the_history_shows_one_annotator_and_as_many_lines_as_are_asked_for(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    before = nb.cells()
    nb.ask(
        "free = [source.ids[int(i)] for i in session.ranking('random', show='unlabelled')]\n"
        "session.label(dict.fromkeys(free[:150], 'normal'), by='ann')\n"
        "session.label(dict.fromkeys(free[150:170], 'anomaly'), by='<b>ben</b>')"
    )
    page.click(".amw-past-toggle")
    total = page.locator(".amw-past-total")
    expect(total).to_have_text("220 lines, the latest first")
    row = page.locator(".amw-past-row")
    expect(row).to_have_count(100)
    more = page.locator(".amw-past-more-rows")
    expect(more).to_have_text("more: 120 older")
    more.click()
    expect(row).to_have_count(200)
    more.click()
    expect(row).to_have_count(220)
    expect(more).to_have_count(0)
    numbers = page.eval_on_selector_all(".amw-past-row", "all => all.map(e => Number(e.dataset.number))")
    assert numbers == list(range(219, -1, -1))

    # One annotator, "" among them, and what of theirs holds a text.
    names = page.eval_on_selector_all(".amw-past-by option", "all => all.map(e => e.textContent)")
    assert names == ["all annotators", "(no name)", "<b>ben</b>", "ann"]
    for name, n in (("<b>ben</b>", 20), ("(no name)", 50), ("ann", 150)):
        page.select_option(".amw-past-by", label=name)
        expect(total).to_have_text(f"{n} lines, the latest first")
        expect(row).to_have_count(min(n, 100))  # anew from the latest
        assert set(rows(page, ".amw-past-who")) == {"" if name == "(no name)" else name}
    last = rows(page, ".amw-past-id")[0]
    page.fill(".amw-past-text", last)
    expect(row).to_have_count(1)
    page.select_option(".amw-past-by", label="<b>ben</b>")
    expect(page.locator(".amw-past-empty")).to_have_text("No line passes the filter.")
    page.select_option(".amw-past-by", label="all annotators")
    expect(row).to_have_count(1)
    page.focus(".amw-past-text")
    page.keyboard.press("Escape")
    expect(total).to_have_text("220 lines, the latest first")
    assert nb.cells() == before
