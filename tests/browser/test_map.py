"""The map beside the gallery, in a real JupyterLab."""

from __future__ import annotations

import json

from tests.browser.helper import show, titles

PAD = 12  # as in map.vue


def show_embedded(notebook, cells, **options):
    nb = show(notebook, cells, **options)
    nb.page.wait_for_selector(".amw-like", state="attached")  # all images are embedded
    return nb


def open_map(nb):
    """Open the map; give its images' ids and places."""
    assert not nb.page.locator(".amw-map").count()
    nb.page.click(".amw-side-map")
    nb.page.wait_for_selector('.amw-map[data-drawn="1"]')
    nb.page.wait_for_selector(".amw-plots-scroll", state="hidden")
    said = nb.ask(
        "import json; found = session.map(); print(json.dumps([found.image_ids, found.xy.tolist()]))"
    )
    return dict(zip(*json.loads(said), strict=True))


def on_screen(page, place):
    frame = page.locator(".amw-map-canvas").bounding_box()
    return (
        frame["x"] + PAD + place[0] * (frame["width"] - 2 * PAD),
        frame["y"] + PAD + place[1] * (frame["height"] - 2 * PAD),
    )


def colour(page, place):
    """The colour of the canvas, [red, green, blue, alpha]."""
    x, y = on_screen(page, place)
    return page.evaluate(
        """([x, y]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
            const canvas = document.querySelector('.amw-map-canvas');
            const frame = canvas.getBoundingClientRect();
            const ratio = window.devicePixelRatio;
            done([...canvas.getContext('2d').getImageData(
                Math.round((x - frame.left) * ratio), Math.round((y - frame.top) * ratio), 1, 1).data]);
        })))""",
        [x, y],
    )


def cursor(page):
    return page.get_attribute(".amw-cursor", "title")


def loneliest(places, among):
    """The image whose nearest neighbour on the map is the farthest: a click there means no other."""

    def room(image_id):
        x, y = places[image_id]
        return min((x - a) ** 2 + (y - b) ** 2 for i, (a, b) in places.items() if i != image_id)

    return max(among, key=room)


def test_map_and_gallery_go_hand_in_hand(notebook, sky):
    nb = show_embedded(notebook, sky)
    page = nb.page
    before = nb.cells()
    places = open_map(nb)
    assert len(places) == 400
    assert "400 of 400 images" in page.inner_text(".amw-map-counts")

    # A click on a point that is on no page near by.
    labelled = set(json.loads(nb.ask("import json; print(json.dumps(list(session.labels.current())))")))
    shown = set(page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)"))
    image_id = loneliest(places, set(places) - labelled - shown)
    x, y = on_screen(page, places[image_id])
    page.mouse.move(x, y)
    page.wait_for_selector(".amw-map-tip img")
    assert image_id in page.inner_text(".amw-map-tip")
    assert "Score" in page.inner_text(".amw-map-tip")
    page.mouse.click(x, y)
    page.wait_for_function("id => document.querySelector('.amw-cursor').title === id", arg=image_id)
    index = list(places).index(image_id)
    page.wait_for_selector(f'.amw-map[data-cursor="{index}"]')
    assert page.evaluate("document.activeElement.className") == "amw-gallery"

    # The key means the image that was clicked, and its point follows.
    page.mouse.move(5, 5)
    counts = page.inner_text(".amw-map-counts")
    page.keyboard.press("a")
    page.wait_for_function("t => document.querySelector('.amw-map-counts').innerText !== t", arg=counts)
    red, green, blue, _ = colour(page, places[image_id])
    assert red > 190
    assert blue < 80
    assert 100 < green < 190
    page.keyboard.press("z")
    page.wait_for_function("t => document.querySelector('.amw-map-counts').innerText === t", arg=counts)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => document.querySelector('.amw-map').dataset.cursor !== '{index}'")

    # The cursor is followed at once, and a labelled image is found among all images.
    image_id = loneliest(places, labelled)
    page.mouse.click(*on_screen(page, places[image_id]))
    page.wait_for_function("id => document.querySelector('.amw-cursor').title === id", arg=image_id)
    assert page.input_value(".amw-show") == "all"
    assert nb.cells() == before


def test_what_is_selected_is_marked_and_a_rectangle_selects_what_is_on_the_page(notebook, sky):
    nb = show_embedded(notebook, sky)
    page = nb.page
    places = open_map(nb)
    points = {image_id: k for k, image_id in enumerate(places)}
    ids = titles(page)
    page.click('.amw-tile[data-index="1"] .amw-image')
    page.keyboard.press("Shift+ArrowRight")
    marked = " ".join(str(points[i]) for i in ids[1:3])
    page.wait_for_selector(f'.amw-map[data-chosen="{marked}"]')
    page.keyboard.press("Escape")
    page.wait_for_selector('.amw-map[data-chosen=""]')

    serial = page.get_attribute(".amw-gallery", "data-serial")
    page.mouse.move(*on_screen(page, (-0.01, -0.01)))
    page.keyboard.down("Control")
    page.mouse.down()
    page.mouse.move(*on_screen(page, (0.3, 0.3)))
    page.mouse.move(*on_screen(page, (0.5, 0.5)))
    page.mouse.up()
    page.keyboard.up("Control")
    page.wait_for_selector(".amw-chosen")
    inside = {k for k, i in enumerate(ids) if max(places[i]) < 0.5}
    chosen = set(page.eval_on_selector_all(".amw-chosen", "all => all.map(t => Number(t.dataset.index))"))
    assert len(inside) > 3
    assert len(inside ^ chosen) <= 2  # a pixel more or less
    assert page.get_attribute(".amw-gallery", "data-serial") == serial  # the page stays
    assert page.locator(".amw-map").get_attribute("data-chosen").count(" ") == len(chosen) - 1
    page.keyboard.press("n")  # the keys mean what is selected
    page.wait_for_function(
        "n => document.querySelectorAll('.amw-tile[data-label=normal][data-kept=yes]').length === n",
        arg=len(chosen),
    )


def test_a_rectangle_is_listed_and_the_wheel_looks_closer(notebook, sky):
    nb = show_embedded(notebook, sky)
    page = nb.page
    places = open_map(nb)
    page.mouse.move(*on_screen(page, (0, 0)))
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(*on_screen(page, (0.3, 0.3)))
    page.mouse.move(*on_screen(page, (0.5, 0.5)))
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector(".amw-back")
    said = page.inner_text(".amw-similar-to")
    n = int(said.split()[0])
    inside = {i for i, (x, y) in places.items() if x < 0.5 and y < 0.5}
    assert said.endswith("of the map")
    assert abs(n - len(inside)) <= 12  # a pixel more or less
    ids = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
    assert len(set(ids) & inside) >= len(ids) - 8
    page.click(".amw-back")
    page.wait_for_selector(".amw-back", state="detached")

    assert page.is_disabled(".amw-map-whole")
    centre = on_screen(page, (0.5, 0.5))
    page.mouse.move(*centre)
    page.mouse.wheel(0, -400)
    page.wait_for_selector(".amw-map-whole:enabled")
    page.mouse.down()
    page.mouse.move(centre[0] + 60, centre[1] + 40, steps=4)
    page.mouse.up()
    assert page.is_enabled(".amw-map-whole")
    page.mouse.dblclick(*on_screen(page, (0.02, 0.5)))
    page.wait_for_selector(".amw-map-whole:disabled")
    page.click(".amw-map-refresh")
    page.wait_for_selector('.amw-map[data-drawn="2"]')
    page.click(".amw-side-plots")
    page.wait_for_selector(".amw-plots-scroll", state="visible")
    page.wait_for_selector(".amw-map", state="hidden")


def test_umap_that_is_not_installed_is_told_and_a_button_lists_a_rectangle(notebook, sky):
    nb = show_embedded(notebook, sky)
    page = nb.page
    before = nb.cells()
    nb.ask("import sys; sys.modules['umap'] = None")  # as if it were not there
    places = open_map(nb)
    page.select_option(".amw-map-method", "umap")
    page.wait_for_selector(".amw-message.amw-error:has-text(\"pip install 'amatch-widgets[umap]'\")")
    page.wait_for_function("document.querySelector('.amw-map-method').value === 'pca'")
    page.wait_for_selector(".amw-map-refresh:enabled")
    assert page.get_attribute(".amw-map", "data-drawn") == "1"  # the one there stays

    choose = page.locator(".amw-map-choose")
    assert choose.get_attribute("aria-pressed") == "false"
    choose.click()
    page.wait_for_selector('.amw-map-choose[aria-pressed="true"]')
    page.wait_for_selector(".amw-map-crosshair")
    page.mouse.move(*on_screen(page, (0, 0)))
    page.mouse.down()
    page.mouse.move(*on_screen(page, (0.3, 0.3)))
    page.mouse.move(*on_screen(page, (0.5, 0.5)))
    page.mouse.up()
    page.wait_for_selector(".amw-back")
    n = int(page.inner_text(".amw-similar-to").split()[0])
    inside = {i for i, (x, y) in places.items() if x < 0.5 and y < 0.5}
    assert abs(n - len(inside)) <= 12  # a pixel more or less
    assert len(set(titles(page)) & inside) >= len(titles(page)) - 8
    # For one rectangle: the next drag moves the map.
    page.wait_for_selector('.amw-map-choose[aria-pressed="false"]')
    page.wait_for_selector(".amw-map-crosshair", state="detached")
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-back", state="detached")
    assert nb.cells() == before
