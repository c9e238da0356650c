"""Labelling by keys, ranges, undo, tags and stars, in a real JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.helper import records, show, tile, titles, wait_label


def said(tmp_path):
    """The last line of each image."""
    return {r["id"]: r for r in records(tmp_path)}


def chosen(page):
    return page.eval_on_selector_all(".amw-chosen", "tiles => tiles.map(t => Number(t.dataset.index))")


def turn(page, key, number):
    page.keyboard.press(key)
    page.wait_for_function(
        "(n) => document.querySelector('.amw-page-number').textContent.trim().startsWith(n)", arg=str(number)
    )


def test_a_page_is_labelled_with_ranges_and_undone_across_pages(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    ids = titles(page)
    n_before = len(records(tmp_path))

    # A range by keys, one action.
    tile(page, 2).locator(".amw-image").click()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert chosen(page) == [2, 3, 4, 5]
    expect(page.locator(".amw-target")).to_have_text("4 selected")
    page.keyboard.press("a")
    wait_label(page, 5, "anomaly")
    assert chosen(page) == []
    assert "amw-cursor" in tile(page, 6).get_attribute("class")
    assert [r["id"] for r in records(tmp_path)[n_before:]] == ids[2:6]
    assert len({r["action"] for r in records(tmp_path)[n_before:]}) == 1

    # A range by the mouse, less one by Ctrl, plus one by Space.
    tile(page, 8).locator(".amw-image").click()
    tile(page, 11).locator(".amw-image").click(modifiers=["Shift"])
    tile(page, 9).locator(".amw-image").click(modifiers=["Control"])
    page.keyboard.press("End")
    page.keyboard.press("Space")
    assert chosen(page) == [8, 10, 11, 47]
    page.keyboard.press("Escape")
    assert chosen(page) == []

    # The rest is normal, as one action, and all of it is taken back from another page.
    page.keyboard.press("Shift+N")
    wait_label(page, 0, "normal")
    wait_label(page, 5, "anomaly")
    assert page.locator('.amw-tile[data-label=""]').count() == 0
    turn(page, "PageDown", 2)
    page.keyboard.press("n")
    wait_label(page, 0, "normal")
    page.keyboard.press("z")
    wait_label(page, 0, "")
    page.keyboard.press("z")
    wait_label(page, 2, "anomaly")  # the first page is back, where the rest was
    wait_label(page, 0, "")
    assert page.locator(".amw-page-number").inner_text().startswith("1 ")
    page.keyboard.press("z")
    wait_label(page, 2, "")
    assert page.locator('.amw-tile:not([data-label=""])').count() == 0
    assert page.locator(".amw-undo").is_disabled()
    page.keyboard.press("z")  # there is nothing left
    for _ in range(2):
        page.keyboard.press("Shift+Z")
    wait_label(page, 2, "anomaly")
    wait_label(page, 0, "normal")
    now = said(tmp_path)
    assert [now[i]["label"] for i in ids[:6]] == ["normal"] * 2 + ["anomaly"] * 4
    assert nb.cells() == before


def test_stars_tags_and_notes_by_keys(notebook, sky, tmp_path):
    hostile = "<img src=x onerror='window.hit=1'>{{ 1+1 }}"
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    ids = titles(page)
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("s")
    page.wait_for_selector('.amw-tile[data-index="0"][data-starred="yes"]')
    assert said(tmp_path)[ids[0]]["star"] is True
    assert said(tmp_path)[ids[0]]["label"] is None

    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("t")
    page.keyboard.type("merger")
    page.keyboard.press("Enter")
    expect(page.locator(".amw-chip")).to_contain_text("merger")
    page.keyboard.type(hostile)
    page.keyboard.press("Enter")
    expect(page.locator(".amw-chip")).to_have_count(2)
    page.locator(".amw-note").fill("two cores")
    page.locator(".amw-note").press("Enter")
    page.wait_for_selector('.amw-tile[data-index="1"] .mdi-note-text-outline')
    for i in ids[:2]:
        assert (said(tmp_path)[i]["tags"], said(tmp_path)[i]["note"]) == (["merger", hostile], "two cores")
    # The keys are the gallery's again; the tag that was used is offered, and can be taken away.
    page.keyboard.press("t")
    assert "merger" in page.eval_on_selector_all("datalist option", "options => options.map(o => o.value)")
    page.locator(".amw-chip", has_text="merger").locator("button").press("Enter")
    expect(page.locator(".amw-chip")).to_have_count(1)
    assert page.evaluate("document.activeElement.matches('.amw-tag')")
    assert not page.locator(".amw-detail").count()
    page.keyboard.press("Escape")
    page.keyboard.press("s")  # both
    page.wait_for_selector('.amw-tile[data-index="1"][data-starred="yes"]')
    page.keyboard.press("s")
    page.wait_for_selector('.amw-tile[data-index="0"][data-starred="no"]')
    page.keyboard.press("z")
    page.wait_for_selector('.amw-tile[data-index="0"][data-starred="yes"]')
    assert page.evaluate("window.hit") is None
    assert nb.cells() == before


def test_a_second_look_is_blind_and_the_rest_of_the_page_leaves_it_alone(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    nb.ask("first = list(session.labels.current())[0]\nsession.annotate(first, star=True, note='an odd one')")
    before = {i: (r["label"], r["star"], r["note"]) for i, r in said(tmp_path).items()}
    page.click(".amw-past-toggle")
    page.wait_for_selector(".amw-past-row")
    page.select_option(".amw-per-page", "96")
    page.select_option(".amw-sort", "second look")
    page.wait_for_function("document.querySelector('.amw-show').value === 'labelled'")
    marks = ".amw-mark, .amw-flags, .amw-score, .amw-past-anomaly.amw-on, .amw-past-what b"
    expect(page.locator(marks)).to_have_count(0)
    ids = titles(page)
    assert set(ids) == set(before)

    # Neither the keys that mean a whole page, nor those for what is beside a label, touch what is hidden.
    odd = ids.index(next(i for i in ids if before[i][1]))
    tile(page, odd).locator(".amw-image").click()
    n = len(records(tmp_path))
    page.keyboard.press("Shift+N")
    assert page.is_disabled(".amw-rest")
    page.keyboard.press("s")
    page.keyboard.press("t")
    expect(page.locator(".amw-message").first).to_contain_text("label the image first")
    assert not page.locator(".amw-tagging").count()
    assert page.evaluate("document.activeElement.className") == "amw-gallery"

    page.keyboard.press("n")
    wait_label(page, odd, "normal")
    page.wait_for_selector(f'.amw-tile[data-index="{odd}"][data-starred="yes"] .mdi-note-text-outline')
    expect(page.locator(".amw-tile .amw-mark")).to_have_count(1)
    page.wait_for_selector(".amw-past-row b.amw-past-normal")
    page.keyboard.press("Shift+N")
    page.keyboard.press("z")
    page.wait_for_selector(f'.amw-tile[data-index="{odd}"][data-label=""]')
    page.keyboard.press("Shift+Z")
    wait_label(page, odd, "normal")
    now = {i: (r["label"], r["star"], r["note"]) for i, r in said(tmp_path).items()}
    assert now == before | {ids[odd]: ("normal", True, "an odd one")}
    assert len(records(tmp_path)) == n + 3


def test_a_note_that_was_not_changed_is_not_written(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    nb.ask(f"session.annotate({ids[0]!r}, note='mine')\nsession.annotate({ids[1]!r}, note='yours')")
    page.wait_for_selector('.amw-tile[data-index="1"] .mdi-note-text-outline')
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("t")
    note = page.locator(".amw-note")
    assert (note.input_value(), note.get_attribute("placeholder")) == ("", "their notes differ")
    note.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("t")  # the bar follows the cursor, and what is typed stays with its image
    expect(note).to_have_value("yours")
    note.fill("theirs")
    tile(page, 0).locator(".amw-image").click()
    expect(note).to_have_value("mine")
    page.wait_for_selector('.amw-tile[data-index="1"] [title="theirs"]')
    assert [said(tmp_path)[i]["note"] for i in ids[:2]] == ["mine", "theirs"]


def test_what_looks_the_same_is_labelled_together_and_undone_at_once(notebook, light, tmp_path):
    nb = show(
        notebook,
        [
            (
                "import amatch_widgets as am\nimport numpy as np\n"
                "sky = am.demo.sky(40, seed=0)\nimages = np.stack([sky.read(k) for k in range(40)])\n"
                "images = np.concatenate([images, images[:3], images[:1]])  # 40, 41, 42 and 43\n"
                f"session = am.Session(images, path={str(tmp_path / 'run')!r}, train={light})"
            ),
            "session",
        ],
    )
    page = nb.page
    page.wait_for_selector(".amw-twins")
    ids = titles(page)
    at = {k: ids.index(f"{k:0{len(ids[0])}}") for k in (0, 1, 2, 40, 43)}
    expect(tile(page, at[0]).locator(".amw-twins")).to_have_text("\N{MULTIPLICATION SIGN}3")
    expect(tile(page, at[1]).locator(".amw-twins")).to_have_text("\N{MULTIPLICATION SIGN}2")
    tip = tile(page, at[0]).locator(".amw-twins").get_attribute("title")
    assert tip.split("\n")[1:] == [ids[at[40]], ids[at[43]]]

    tile(page, at[2]).locator(".amw-image").click()
    page.keyboard.press("n")
    wait_label(page, at[2], "normal")
    assert page.locator('.amw-tile[data-label="normal"]').count() == 1
    toggle = page.locator(".amw-with-twins")
    assert toggle.get_attribute("aria-pressed") == "false"
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    tile(page, at[0]).locator(".amw-image").click()
    page.keyboard.press("a")
    for k in (0, 40, 43):
        wait_label(page, at[k], "anomaly")
    assert said(tmp_path)[ids[at[43]]]["reason"] == f"same as {ids[at[0]]}"
    page.keyboard.press("z")
    wait_label(page, at[43], "")
    assert page.locator('.amw-tile:not([data-label=""])').count() == 1


def test_the_annotator_and_the_reason_are_kept_with_the_label(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    tile(page, 1).locator(".amw-image").click()
    page.locator(".amw-by input").fill("Ada")
    page.locator(".amw-by input").press("Enter")
    page.keyboard.press("a")
    wait_label(page, 1, "anomaly")
    assert said(tmp_path)[ids[1]]["by"] == "Ada"
    tile(page, 1).locator(".amw-image").click()
    reason = said(tmp_path)[ids[1]]["reason"]
    assert page.locator(".amw-why").inner_text() == reason != ""
    assert tile(page, 1).locator(".amw-image").get_attribute("title") == f"{ids[1]}\n{reason}"


def test_the_keys_are_shown_and_put_away(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("?")
    expect(page.locator(".amw-help")).to_contain_text("rest of the page is normal")
    expect(page.locator(".amw-help")).to_contain_text("train")
    for closes in ("Escape", "Enter"):  # the second presses its button
        page.keyboard.press(closes)
        expect(page.locator(".amw-help")).to_have_count(0)
        assert page.evaluate("document.activeElement.classList.contains('amw-gallery')")
        if closes == "Escape":
            page.keyboard.press("?")
            page.locator(".amw-help .amw-x").focus()
    page.keyboard.press("?")
    page.click(".amw-help-toggle")  # it is in sight beside what it has opened
    expect(page.locator(".amw-help")).to_have_count(0)

    # What stands beside and above the gallery.
    page.keyboard.press("p")
    expect(page.locator(".amw-side-map")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("p")
    expect(page.locator(".amw-side-plots")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("i")
    page.wait_for_function("document.activeElement.closest('.amw-preview')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    page.keyboard.press("i")
    expect(page.locator(".amw-preview")).to_have_count(0)
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")


def test_filters_and_jumps_find_images(notebook, sky):
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("f")
    page.keyboard.type("12")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.amw-tile')].every(t => t.title.includes('12'))"
        " && document.querySelectorAll('.amw-tile').length > 5"
    )
    assert page.evaluate("document.activeElement.classList.contains('amw-gallery')")
    page.keyboard.press("a")  # the keys are the gallery's again
    wait_label(page, 0, "anomaly")
    page.locator(".amw-unfilter").click()
    page.wait_for_function("document.querySelectorAll('.amw-tile').length === 48")

    page.keyboard.press("g")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('3 ')")
    wanted = tile(page, 7).get_attribute("title")
    page.keyboard.press("PageUp")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('2 ')")
    page.keyboard.press("g")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    page.wait_for_selector('.amw-tile.amw-cursor[data-index="7"]')
    assert tile(page, 7).get_attribute("title") == wanted

    page.locator(".amw-show").select_option("anomaly")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.amw-tile')].every(t => t.dataset.label === 'anomaly')"
    )
    page.locator(".amw-show").select_option("starred")
    expect(page.locator(".amw-empty")).to_contain_text("Nothing is starred yet")
    assert nb.cells() == before


def test_the_plots_speak_of_the_gallerys_page_and_lead_to_the_audit(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    tile(page, 0).locator(".amw-image").click()
    for k in range(12):
        page.keyboard.press("n")
        wait_label(page, k, "normal")
    page.wait_for_selector(".amw-chart-text:has-text('Another 48 images are')")
    page.select_option(".amw-per-page", "24")
    page.wait_for_selector(".amw-chart-text:has-text('Another 24 images are')")
    page.click(".amw-do-audit")
    page.wait_for_function("document.querySelector('.amw-sort').value === 'mixed'")
    page.wait_for_selector(".amw-do-audit", state="detached")
    page.wait_for_selector(".amw-chart-text:has-text('audited images have no label yet')")
    page.wait_for_selector(".amw-tile img")
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("Shift+N")
    page.wait_for_selector(".amw-chart-text:has-text('audited images, no anomaly')")
    # Each class has its own shape beside its own colour.
    shapes = page.eval_on_selector_all(
        ".amw-chart-scores .amw-chart-marks path:first-child",
        "marks => marks.map(m => [m.getAttribute('d'), getComputedStyle(m).fill])",
    )
    assert len(shapes) == 2
    assert len({d for d, _ in shapes}) == len({fill for _, fill in shapes}) == 2
