"""The detail view under the user's hands, in a real JupyterLab."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tests.browser.helper import cursor, labels, records, show, titles

OPEN = '.amw-detail[data-shown="yes"]'

# What is in the image that is shown.
BYTES = """async (tile) => {
    const answer = await fetch(document.querySelector(tile).src);
    return new Uint8Array(await answer.arrayBuffer()).join();
}"""


def wait_that(page, check, arg):
    """Wait until an async check holds; `wait_for_function` takes the promise itself for a yes."""
    page.evaluate(
        f"""async (arg) => {{
            const holds = {check};
            const end = performance.now() + 60000;
            while (!(await holds(arg))) {{
                if (performance.now() > end) throw new Error("waited for a minute in vain");
                await new Promise((done) => requestAnimationFrame(done));
            }}
        }}""",
        arg,
    )


def pixels(page, selector=".amw-d-picture"):
    return page.evaluate(BYTES, selector)


def wait_pixels(page, holds, *others, selector=".amw-d-picture"):
    """Wait until an image is, or is not, like these; give its bytes."""
    check = f"""async ([selector, others]) => {{
        const now = await ({BYTES})(selector).catch(() => null);
        return now !== null && others.every((old) => {holds});
    }}"""
    wait_that(page, check, [selector, list(others)])
    return pixels(page, selector)


def opened(page, image_id):
    page.wait_for_selector(f'{OPEN}[data-image="{image_id}"] .amw-d-picture')


def zoom(page):
    return int(page.inner_text(".amw-d-zoom").rstrip(" %"))


def wait_zoom(page, holds):
    now = "parseInt(document.querySelector('.amw-d-zoom').textContent)"
    page.wait_for_function(f"(z => {holds})({now})")


def click_tile(page, index, **options):
    page.click(f'.amw-tile[data-index="{index}"] .amw-image', **options)


def test_enter_opens_arrows_move_labels_are_kept_and_escape_leads_back(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    before = nb.cells()
    ids = titles(page)
    click_tile(page, 2)
    page.keyboard.press("Enter")
    opened(page, ids[2])
    assert page.evaluate("document.activeElement.className").startswith("amw-detail")
    natural = page.eval_on_selector(".amw-d-picture", "e => [e.naturalWidth, e.naturalHeight]")
    assert natural == [64, 64]

    page.keyboard.press("ArrowRight")
    opened(page, ids[3])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    opened(page, ids[1])
    assert cursor(page) == 1

    page.keyboard.press("a")  # kept as in the gallery, and on to the next image as there
    opened(page, ids[2])
    page.wait_for_selector(f'.amw-d-kept[title="{ids[1]}"]')
    assert labels(tmp_path)[ids[1]] == "anomaly"
    page.click(".amw-d-labels .amw-n")
    opened(page, ids[3])
    page.wait_for_selector(f'.amw-d-kept[title="{ids[2]}"]')
    assert labels(tmp_path)[ids[2]] == "normal"
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f'.amw-detail[data-image="{ids[2]}"][data-label="normal"]')
    assert "normal" in page.inner_text(".amw-d-past")
    assert "random: nothing is scored yet" in page.inner_text(".amw-d-past")
    page.keyboard.press("c")
    page.wait_for_selector(f'.amw-d-kept[title="{ids[2]}"]')
    assert labels(tmp_path)[ids[2]] is None

    # Keys that the detail does not know mean the gallery, and none reaches JupyterLab.
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('2')")
    opened(page, titles(page)[0])
    page.keyboard.press("PageUp")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('1')")
    opened(page, ids[0])
    page.keyboard.press("End")
    opened(page, ids[47])
    for key in ("b", "x", "d", "d", "1", "Enter", " "):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    assert page.evaluate("document.activeElement.className") == "amw-gallery"
    assert cursor(page) == 47
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector('.amw-cursor[data-index="46"]')
    assert not page.locator(".amw-detail").count()
    assert nb.cells() == before


def test_zoom_and_pan_change_what_is_shown(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    click_tile(page, 0, click_count=2)
    opened(page, ids[0])
    page.wait_for_selector(".amw-d-fit.amw-on")
    fit = zoom(page)
    assert fit > 100
    style = "e => getComputedStyle(e).imageRendering"
    assert page.eval_on_selector(".amw-d-picture", style) == "pixelated"
    page.keyboard.press("+")
    wait_zoom(page, f"z > {fit}")
    page.keyboard.press("-")
    page.keyboard.press("-")
    wait_zoom(page, f"z < {fit}")
    page.keyboard.press("0")
    wait_zoom(page, f"z === {fit}")
    page.keyboard.press("1")
    wait_zoom(page, "z === 100")
    assert page.locator(".amw-d-picture").bounding_box()["width"] == 64
    assert page.eval_on_selector(".amw-d-picture", style) == "auto"
    page.dblclick(".amw-d-stage")
    wait_zoom(page, f"z === {fit}")
    page.dblclick(".amw-d-stage")
    wait_zoom(page, f"z >= {2 * fit - 60}")

    box = page.locator(".amw-d-stage").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    at = page.locator(".amw-d-picture").bounding_box()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] - 30, steps=4)
    page.mouse.up()
    moved = page.locator(".amw-d-picture").bounding_box()
    assert [round(moved[k] - at[k]) for k in ("x", "y")] == [40, -30]
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function(
        "x => document.querySelector('.amw-d-picture').getBoundingClientRect().x < x - 5", arg=moved["x"]
    )
    assert cursor(page) == 0
    large = zoom(page)
    page.mouse.wheel(0, 200)
    wait_zoom(page, f"z < {large}")
    page.click(".amw-d-fit")
    wait_zoom(page, f"z === {fit}")


def test_a_rendering_changes_the_image_then_the_gallery_and_is_taken_back(notebook, sky):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    click_tile(page, 0)
    page.keyboard.press("Enter")
    opened(page, ids[0])
    plain = page.get_attribute(".amw-d-picture", "src")
    page.check(".amw-d-invert")
    page.wait_for_function("getComputedStyle(document.querySelector('.amw-d-canvas')).filter === 'invert(1)'")
    assert page.get_attribute(".amw-d-picture", "src") == plain  # at once, without the kernel
    page.select_option(".amw-d-stretch", "asinh")
    changed = "old => document.querySelector('.amw-d-picture').src !== old"
    page.wait_for_function(changed, arg=plain)
    stretched = page.get_attribute(".amw-d-picture", "src")
    page.select_option(".amw-d-limits", "percentile")
    page.fill(".amw-d-white", "90")
    page.keyboard.press("Enter")
    page.wait_for_function(changed, arg=stretched)
    page.select_option(".amw-d-channel", label="2")
    page.fill(".amw-d-white", "0.2")  # below black: refused, and the field goes back
    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-message.amw-error")
    page.wait_for_function("document.querySelector('.amw-d-white').value === '90'")

    tile = '.amw-tile[data-index="5"] img'
    thumbnail = page.evaluate(BYTES, tile)
    address = page.get_attribute(tile, "src")
    page.click(".amw-d-use")
    page.wait_for_function("([tile, old]) => document.querySelector(tile).src !== old", arg=[tile, address])
    assert page.evaluate(BYTES, tile) != thumbnail
    # What was shown before is let go: the browser would keep it else.
    wait_that(page, "old => fetch(old).then(() => false, () => true)", address)
    page.wait_for_function("document.querySelector('.amw-d-use').disabled")
    page.keyboard.press("Escape")
    assert page.eval_on_selector(tile, "e => getComputedStyle(e).filter") == "invert(1)"
    assert page.inner_text(".amw-plain") == "0.5-90 %, asinh, channel 2, inverted ✕"
    page.keyboard.press("Enter")
    opened(page, ids[0])
    page.click(".amw-d-reset")
    wait_pixels(page, "now === old", thumbnail, selector=tile)
    page.wait_for_function(
        "tile => getComputedStyle(document.querySelector(tile)).filter === 'none'", arg=tile
    )
    page.wait_for_function("old => document.querySelector('.amw-d-picture').src === old", arg=plain)
    assert not page.locator(".amw-plain").count()


def test_each_limit_stretch_and_slider_is_seen_used_for_the_gallery_and_reset(notebook, sky):
    nb = show(notebook, [sky[0], "board = session.show()\nboard"])
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # nothing is drawn anew for want of preparing
    ids = titles(page)
    click_tile(page, 0)
    page.keyboard.press("Enter")
    opened(page, ids[0])
    seen = [pixels(page)]
    assert not page.locator(".amw-d-softening").count()
    for choice, value in (("limits", "zscale"), ("stretch", "log"), ("stretch", "asinh")):
        page.select_option(f".amw-d-{choice}", value)
        seen.append(wait_pixels(page, "now !== old", *seen))
    page.fill(".amw-d-softening", "0.9")
    page.keyboard.press("Enter")
    seen.append(wait_pixels(page, "now !== old", *seen))
    page.fill(".amw-d-softening", "7")  # refused, and the field goes back
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.amw-d-softening').value === '0.9'")
    page.click(".amw-message .amw-x")

    # The sliders are the browser's, at once; they catch at the middle.
    canvas = "getComputedStyle(document.querySelector('.amw-d-canvas')).filter"
    for slider, at, css in (
        ("brightness", "0.5", "brightness(2)"),
        ("contrast", "-0.5", "brightness(2) contrast(0.5)"),
        ("brightness", "0.02", "contrast(0.5)"),
    ):
        page.fill(f".amw-d-{slider}", at)
        page.wait_for_function(f"{canvas} === '{css}'")
    assert pixels(page) == seen[-1]
    page.focus(".amw-d-contrast")
    page.keyboard.press("ArrowRight")  # the slider's, and not the gallery's
    page.wait_for_function(f"{canvas} === 'contrast(0.514)'")
    assert page.get_attribute(".amw-detail", "data-image") == ids[0]

    # All of it for all images.
    thumbnail = '.amw-tile[data-index="5"] img'
    plain = pixels(page, thumbnail)
    page.click(".amw-d-use")
    wait_pixels(page, "now !== old", plain, selector=thumbnail)
    page.wait_for_selector(".amw-d-use:disabled")
    used = json.loads(nb.ask("import json; print(json.dumps(board.gallery.rendering.to_dict()))"))
    wanted = {"limits": "zscale", "stretch": "asinh", "softening": 0.9, "brightness": 1, "contrast": 0.514}
    assert used | wanted == used
    page.keyboard.press("Escape")
    assert page.inner_text(".amw-plain").startswith("zscale, asinh")
    assert page.eval_on_selector(thumbnail, "e => getComputedStyle(e).filter") == "contrast(0.514)"
    click_tile(page, 5)
    page.keyboard.press("Enter")  # the next image is shown so, too
    opened(page, ids[5])
    assert page.input_value(".amw-d-limits") == "zscale"
    page.click(".amw-d-reset")
    wait_pixels(page, "now === old", plain, selector=thumbnail)
    page.wait_for_function(f"{canvas} === 'none'")
    page.wait_for_selector(".amw-d-reset:disabled")
    assert page.input_value(".amw-d-stretch") == "auto"
    page.keyboard.press("Home")
    wait_pixels(page, "now === old", seen[0])
    assert not page.locator(".amw-plain").count()
    assert nb.cells() == before


def test_neighbours_are_visited_and_labelled_without_the_gallery(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    ids = titles(page)
    click_tile(page, 0)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.amw-d-near img').length === 6")
    near = page.locator(".amw-d-near").first
    image_id = near.get_attribute("title").rpartition(": ")[0]
    assert image_id not in ids
    near.click()
    opened(page, image_id)
    page.keyboard.press("a")
    page.wait_for_selector(f'.amw-detail[data-image="{image_id}"][data-label="anomaly"]')
    page.keyboard.press("n")
    page.wait_for_selector(f'.amw-detail[data-image="{image_id}"][data-label="normal"]')
    expect(page.locator(".amw-detail .amw-said")).to_have_text(f"{image_id}: normal, kept")
    assert labels(tmp_path)[image_id] == "normal"
    assert ids[0] not in labels(tmp_path)
    page.keyboard.press("Escape")
    opened(page, ids[0])
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")


def remarks(tmp_path, image_id):
    """Star, tags and note that were kept last."""
    line = [r for r in records(tmp_path) if r["id"] == image_id][-1]
    return line["star"], line["tags"], line["note"]


def test_stars_tags_and_notes_are_given_in_the_detail(notebook, sky, tmp_path):
    hostile = "<img src=x onerror='window.hit=1'>{{ 1+1 }}"
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    ids = titles(page)
    click_tile(page, 1)
    page.keyboard.press("Enter")
    opened(page, ids[1])
    page.keyboard.press("s")
    page.wait_for_selector('.amw-detail[data-starred="yes"] .amw-d-starred')
    page.keyboard.press("t")
    assert page.evaluate("document.activeElement.className").endswith("amw-d-tag")
    page.keyboard.type("merger")
    page.keyboard.press("Enter")
    expect(page.locator(".amw-d-chips .amw-chip")).to_contain_text("merger")
    page.keyboard.type(hostile)
    page.keyboard.press("Enter")
    expect(page.locator(".amw-d-chips .amw-chip")).to_have_count(2)
    page.locator(".amw-d-written").fill("two cores")
    page.keyboard.press("Enter")
    page.wait_for_selector('.amw-tile[data-index="1"] [title="two cores"]', state="attached")
    assert remarks(tmp_path, ids[1]) == (True, ["merger", hostile], "two cores")
    assert page.evaluate("document.activeElement.className").startswith("amw-detail")
    page.locator(".amw-d-chips .amw-x").nth(1).click()
    expect(page.locator(".amw-d-chips .amw-chip")).to_have_count(1)
    page.locator(".amw-d-written").fill("never mind")
    page.keyboard.press("Escape")  # leaves the field, and the note as it was
    expect(page.locator(".amw-d-written")).to_have_value("two cores")
    page.keyboard.press("z")
    expect(page.locator(".amw-d-chips .amw-chip")).to_have_count(2)
    assert not page.locator(".amw-tagging").count()
    page.keyboard.press("ArrowRight")
    opened(page, ids[2])
    expect(page.locator(".amw-d-chips")).to_have_count(0)
    expect(page.locator(".amw-d-written")).to_have_value("")
    assert page.evaluate("window.hit") is None
    assert nb.cells() == before


def test_keys_mean_the_neighbour_that_is_seen_and_nothing_opens_below_the_detail(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    ids = titles(page)
    click_tile(page, 2)
    page.keyboard.press("Enter")
    opened(page, ids[2])
    near = page.locator(".amw-d-near").first
    image_id = near.get_attribute("title").rpartition(": ")[0]
    near.press("Enter")
    opened(page, image_id)
    page.keyboard.press("s")
    page.wait_for_selector('.amw-detail[data-starred="yes"]')
    page.keyboard.press("t")
    page.keyboard.type("ring")
    page.keyboard.press("Enter")
    expect(page.locator(".amw-d-chips .amw-chip")).to_contain_text("ring")
    page.keyboard.press("Enter")
    assert remarks(tmp_path, image_id) == (True, ["ring"], "")
    page.keyboard.press("z")
    expect(page.locator(".amw-d-chips")).to_have_count(0)
    page.keyboard.press("Shift+Z")
    expect(page.locator(".amw-d-chips .amw-chip")).to_have_count(1)
    page.keyboard.press("Escape")
    opened(page, ids[2])

    # What lies below the detail is not opened there: the detail gives way.
    for key, field in (("f", ".amw-contains"), ("g", ".amw-jump")):
        page.keyboard.press(key)
        page.wait_for_selector(".amw-detail", state="detached")
        page.wait_for_function("part => document.activeElement.matches(part)", arg=field)
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        opened(page, ids[2])
    page.locator(".amw-plots").click()  # the keys still mean the image that is seen
    page.locator(".amw-train").focus()
    page.keyboard.press("t")
    page.wait_for_function("document.activeElement.matches('.amw-d-tag')")
    # From beside it the keys go back to it, and not to what it covers.
    page.locator(".amw-side-plots").click()
    assert page.evaluate("document.activeElement.matches('.amw-detail')")
    page.locator(".amw-train").focus()
    page.keyboard.press("+")
    assert page.evaluate("document.activeElement.matches('.amw-detail')")
    page.wait_for_selector(".amw-d-fit:not(.amw-on)")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.matches('.amw-past-toggle')")
    page.locator(".amw-gallery").focus()
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    assert nb.cells() == before


def test_a_reload_finds_the_detail_where_it_was_and_the_notebook_holds_no_image(notebook, sky, tmp_path):
    nb = show(notebook, sky)
    page = nb.page
    ids = titles(page)
    click_tile(page, 5)
    page.keyboard.press("Enter")
    opened(page, ids[5])
    nb.save()
    assert "data:image" not in nb.path.read_text()
    nb.open()
    opened(page, ids[5])
    assert cursor(page) == 5
    page.click(".amw-d-id")
    page.keyboard.press("n")  # and not tile 0, where the cursor begins
    opened(page, ids[6])
    page.wait_for_selector(f'.amw-d-kept[title="{ids[5]}"]')
    assert labels(tmp_path)[ids[5]] == "normal"
    assert ids[0] not in labels(tmp_path)


HOSTILE = '"><img src=x onerror="window.pwned=1"> {{ 7 * 191 }}.png'


def test_hostile_names_damaged_files_and_large_images(notebook, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / HOSTILE)
    (folder / "damaged.png").write_bytes(b"")
    ramp = np.add.outer(np.arange(3000), np.arange(4000)) // 28
    Image.fromarray(ramp.astype(np.uint8)).save(folder / "large.png")
    source = f"am.open_source({str(folder)!r})"
    nb = show(
        notebook,
        [
            (
                "import amatch_widgets as am\nfrom amatch_widgets.widgets import Detail\n"
                f"session = am.Session({source}, path={str(tmp_path / 'run')!r}, annotator='<b>me</b>')\n"
                f"session.label({{{HOSTILE!r}: 'normal'}}, note='<svg onload=\"window.pwned=2\">')"
            ),
            "dashboard = session.show()\ndashboard.gallery.choose(show='all', sort='highest')\ndashboard",
            "Detail(session).show('large.png')",
        ],
    )
    page = nb.page
    ids = titles(page)
    click_tile(page, ids.index(HOSTILE), click_count=2)
    page.wait_for_selector(OPEN + " .amw-d-picture")
    assert page.inner_text(".amw-d-id") == HOSTILE
    assert "<b>me</b>" in page.inner_text(".amw-d-past")
    assert "<svg onload" in page.inner_text(".amw-d-past")
    click_to = {"damaged.png": ".amw-d-problem", "large.png": ".amw-d-picture"}
    for name, selector in click_to.items():
        page.keyboard.press("Escape")
        page.wait_for_selector(".amw-detail", state="detached")
        click_tile(page, ids.index(name))
        page.keyboard.press("Enter")
        page.wait_for_selector(f'{OPEN}[data-image="{name}"] {selector}')
    assert page.locator(".amw-detail").count() == 1
    assert page.evaluate("window.pwned") is None
    assert page.locator('img[src="x"]').count() == 0

    # Reduced at first, and in full where it is zoomed in.
    assert page.eval_on_selector(".amw-d-picture", "e => e.naturalWidth") == 2048
    assert not page.locator(".amw-d-part").count()
    page.dblclick(".amw-d-stage")
    page.wait_for_selector(".amw-d-part")
    part = page.eval_on_selector(".amw-d-part", "e => [e.naturalWidth, parseFloat(e.style.width)]")
    assert part[0] == part[1] > 500
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")

    nb.run(2)  # on its own, without a gallery
    alone = page.locator(".amw-alone > .amw-detail")
    alone.locator(".amw-d-picture").wait_for()
    alone.locator(".amw-d-id").click()
    page.keyboard.press("a")
    page.wait_for_selector('.amw-alone > .amw-detail[data-label="anomaly"]')
    assert labels(tmp_path)["large.png"] == "anomaly"
    page.keyboard.press("s")
    page.wait_for_selector('.amw-alone > .amw-detail[data-starred="yes"]')
    page.keyboard.press("t")
    page.keyboard.type("wide")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    alone.locator(".amw-chip", has_text="wide").wait_for()
    page.keyboard.press("z")
    alone.locator(".amw-chip").wait_for(state="detached")
    assert remarks(tmp_path, "large.png") == (True, [], "")


def test_why_lies_over_the_image_follows_zoom_and_goes_with_it(notebook, sky):
    cells = [*sky, "session.wait()", "session.close()"]  # the dashboard embeds by itself
    nb = show(notebook, cells)
    page = nb.page
    nb.run(2)
    click_tile(page, 0)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{OPEN} .amw-d-picture")
    page.keyboard.press("w")
    heat = page.locator(".amw-d-heat img")
    heat.wait_for()
    assert page.eval_on_selector(".amw-d-heat img", "e => e.naturalWidth") == 64
    assert "score would be lower" in page.inner_text(".amw-d-why")
    assert "Score 0." in page.inner_text(".amw-d-why")
    page.wait_for_function(
        "() => !document.querySelector('.amw-d-why').textContent.includes('smaller parts')"
    )
    grey = "() => getComputedStyle(document.querySelector('.amw-d-picture').parentElement).filter"
    assert page.evaluate(grey) == "grayscale(1)"
    assert page.locator(".amw-d-strip").bounding_box()["height"] == 78  # whole, however much stands above it
    assert heat.bounding_box() == page.locator(".amw-d-picture").bounding_box()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert heat.bounding_box() == page.locator(".amw-d-picture").bounding_box()

    page.keyboard.press("w")  # hidden, and shown again without being asked for anew
    page.wait_for_selector(".amw-d-heat", state="detached")
    page.wait_for_selector(".amw-d-why")
    assert page.evaluate(grey) == "none"
    page.click(".amw-d-ask")
    heat.wait_for()
    page.locator(".amw-d-opacity").fill("1")
    page.wait_for_function("getComputedStyle(document.querySelector('.amw-d-heat')).opacity === '1'")
    page.locator(".amw-d-id").click()  # arrows move the slider as long as it has the focus

    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".amw-d-heat", state="detached")
    page.wait_for_selector(f"{OPEN} .amw-d-picture")
    assert not page.locator(".amw-d-why").count()
    nb.run(3)
    page.locator(".amw-d-id").click()
    page.keyboard.press("w")
    page.wait_for_selector(".amw-d-why-not")
    assert "closed" in page.inner_text(".amw-d-why-not")


def test_links_to_the_sky_open_in_the_browser_of_the_user(notebook, light, tmp_path):
    nb = show(
        notebook,
        [
            (
                "import amatch_widgets as am\n"
                "class Catalogue(am.demo.DemoSource):\n"
                "    def position(self, index):\n"
                "        return 10.5 + index, -41.25\n"
                f"session = am.Session(Catalogue(30), path={str(tmp_path / 'run')!r}, train={light})"
            ),
            "session",
        ],
    )
    page = nb.page
    ids = titles(page)
    click_tile(page, 0)
    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-d-links a")
    links = page.eval_on_selector_all(
        ".amw-d-links a", "all => all.map(a => [a.protocol, a.hostname, a.search, a.rel, a.target])"
    )
    target = f"target={10.5 + int(ids[0]):.6f}%20-41.250000"
    assert [link[1] for link in links] == ["sky.esa.int", "aladin.cds.unistra.fr"]
    for protocol, _, search, rel, window in links:
        assert protocol == "https:"
        assert target in search
        assert "noopener" in rel
        assert window == "_blank"


def test_quick_keys_and_a_second_view_label_the_image_that_is_meant(notebook, sky, tmp_path):
    nb = show(notebook, [sky[0], "board = session.show()\nboard", "board"])
    page = nb.page
    nb.run(2)  # the same dashboard once more
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 96")
    ids = page.eval_on_selector_all(".amw-root:first-child .amw-tile", "tiles => tiles.map(t => t.title)")[
        :48
    ]
    boards = [page.locator(".amw-root").nth(k) for k in (0, 1)]
    boards[0].locator('.amw-tile[data-index="0"] .amw-image').click()
    for key in ("Enter", *["ArrowRight"] * 20, "a"):  # faster than any image comes
        page.keyboard.press(key)
    for board in boards:
        board.locator(f'{OPEN}[data-image="{ids[21]}"]').wait_for()
    assert {i for i in ids if labels(tmp_path).get(i)} == {ids[20]}

    boards[1].locator(".amw-d-id").click()
    page.keyboard.press("n")
    for board in boards:
        board.locator(f'{OPEN}[data-image="{ids[22]}"]').wait_for()
    assert {i for i in ids if labels(tmp_path).get(i)} == {ids[20], ids[21]}
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    assert [board.locator(".amw-cursor").get_attribute("data-index") for board in boards] == ["22", "22"]
    assert page.evaluate("document.activeElement.className") == "amw-gallery"
