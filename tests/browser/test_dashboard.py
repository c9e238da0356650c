"""The whole dashboard in a real JupyterLab: how it looks, what it survives, and a first hunt."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.browser.helper import ready


def brightness(page, selector, what):
    colour = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
    return np.mean([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])


def has_theme(page, theme):
    text, ground = brightness(page, ".amw-root", "color"), brightness(page, ".amw-tile", "backgroundColor")
    return (text < 100 and ground > 200) if theme == "light" else (text > 180 and ground < 80)


# What is cut off on a side of its box, or reaches out of the column it stands in.
CLIPPED = """(part) => {
    const column = document.querySelector(part);
    const edge = column.getBoundingClientRect();
    const found = [];
    for (const e of column.querySelectorAll("*")) {
        const box = e.getBoundingClientRect();
        const style = getComputedStyle(e);
        is_apart = e.closest("svg, select, .amw-scroll, .amw-map-place, .amw-plots-scroll, .amw-said");
        if (!e.getClientRects().length || is_apart) continue;
        const is_cut = style.overflowX !== "visible" && !e.matches("input, textarea, .amw-messages");
        const is_too_large = e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1;
        const is_out = box.right > edge.right + 1 || box.left < edge.left - 1 || box.bottom > edge.bottom + 1;
        if ((is_cut && is_too_large) || is_out) found.push(e.className || e.tagName);
    }
    return found;
}"""


@pytest.mark.parametrize(
    ("theme", "size"),
    [
        ("light", (1024, 768)),
        ("light", (1280, 800)),
        ("dark", (1920, 1080)),
        ("dark", (2560, 1440)),
    ],
)
def test_dashboard_fits_and_follows_the_theme(notebook, sky, theme, size):
    nb = notebook(sky, theme=theme, width=size[0], height=size[1])
    page = ready(nb)
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 48")
    assert page.eval_on_selector(".jp-WindowedPanel-outer", "e => e.scrollWidth <= e.clientWidth + 1")
    for part in (".amw-root", ".amw-scroll", ".amw-right", ".amw-plots-scroll"):
        assert page.eval_on_selector(part, "e => e.scrollWidth <= e.clientWidth + 1"), part
    left, right = (page.locator(part).bounding_box() for part in (".amw-left", ".amw-right"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["width"] > 1.4 * right["width"]
    assert has_theme(page, theme)
    other = "dark" if theme == "light" else "light"
    nb.theme(other)
    assert has_theme(page, other)
    assert "400 images" in page.inner_text(".amw-head")
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    assert not page.is_enabled(".amw-pause")
    assert page.locator(".amw-chart").count() == 5

    # With all that comes and goes on the screen, nothing is cut off, in either direction.
    page.click('.amw-tile[data-index="1"] .amw-image')
    page.keyboard.press("a")
    page.wait_for_selector('.amw-tile[data-index="1"][data-kept="yes"][data-label="anomaly"]')
    page.select_option(".amw-sort", "rising")
    page.wait_for_function("document.querySelector('.amw-why').textContent.includes('rising: rank')")
    page.click(".amw-side-map")
    page.wait_for_selector('.amw-map[data-drawn="1"]')
    for state in ("", "t", "f"):
        page.keyboard.press("Escape")
        page.click('.amw-tile[data-index="3"] .amw-image')
        if state:
            page.keyboard.press(state)
        for part in (".amw-head", ".amw-left", ".amw-right"):
            assert page.evaluate(CLIPPED, part) == [], (state, part)


LONG = "survey/tile_0123456789/" + "cutout_of_a_galaxy_" * 6


def test_a_long_id_a_reason_and_a_note_can_be_read(notebook, light, tmp_path):
    folder = tmp_path / "images"
    (folder / LONG).parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(30):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{LONG}{k}.png")
    nb = notebook(
        [
            (
                "import amatch_widgets as am\n"
                f"session = am.Session(am.open_source({str(folder)!r}), path={str(tmp_path / 'run')!r},\n"
                f"                     train={light})"
            ),
            "session",
        ],
        width=1440,  # wide enough for the keys, and not for all of it in one row
    )
    page = ready(nb)
    page.wait_for_selector(".amw-train:enabled")
    page.click('.amw-tile[data-index="1"] .amw-image')
    assert page.inner_text(".amw-why") == "random: nothing is scored yet"
    parts = {part: page.locator(part).bounding_box() for part in (".amw-id", ".amw-why", ".amw-left")}
    assert parts[".amw-id"]["width"] > 250
    assert parts[".amw-why"]["width"] > 150
    assert page.evaluate(CLIPPED, ".amw-foot") == []
    shown = "e => e.scrollHeight <= e.clientHeight + 1 && e.scrollWidth <= e.clientWidth + 1"
    assert page.eval_on_selector(".amw-why", shown)

    place = page.locator(".amw-tile").first.bounding_box()
    page.locator(".amw-ranking-note").press("Enter")
    page.wait_for_selector('.amw-ranking-note[aria-expanded="true"]')
    assert page.eval_on_selector(".amw-ranking-note", shown)
    assert page.locator(".amw-tile").first.bounding_box() == place
    page.keyboard.press("Escape")
    page.wait_for_selector('.amw-ranking-note[aria-expanded="false"]')

    # Opened while it is empty, the history takes no keys from the labelling that fills it.
    page.focus(".amw-gallery")
    page.keyboard.press("h")
    page.wait_for_selector(".amw-past-empty")
    page.keyboard.press("a")
    page.wait_for_selector(".amw-past-row")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")


def test_saved_notebook_holds_no_image_and_a_reload_brings_the_dashboard_back(notebook, sky):
    nb = notebook(sky)
    page = ready(nb)
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 48")
    page.click('.amw-tile[data-index="5"] .amw-a')
    page.wait_for_selector('.amw-tile[data-index="5"][data-label="anomaly"][data-kept="yes"]')
    nb.save()
    saved = nb.path.read_text()
    assert json.loads(saved)["metadata"]["widgets"], "the state of the widgets was to be saved"
    assert "data:image" not in saved
    assert len(saved) < 240_000  # most of it the templates; the images of a page would be as much again
    nb.open()
    page.wait_for_selector('.amw-tile[data-index="5"][data-label="anomaly"][data-kept="yes"]')
    page.wait_for_function("document.querySelectorAll('.amw-tile img').length === 48")
    page.click('.amw-tile[data-index="6"] .amw-n')
    page.wait_for_selector('.amw-tile[data-index="6"][data-label="normal"][data-kept="yes"]')


def test_embeddings_rank_the_next_page_after_one_label_and_find_similar_images(notebook, light, tmp_path):
    nb = notebook(
        [
            (
                "import amatch_widgets as am\n"
                "source = am.demo.sky(300, seed=3, prevalence=0.1)\n"
                f"session = am.Session(source, path={str(tmp_path / 'run')!r}, train={light})"
            ),
            "session",
        ]
    )
    page = ready(nb)

    def titles():
        return page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")

    def turn(key, number):
        page.keyboard.press(key)
        page.wait_for_function(
            "n => document.querySelector('.amw-page-number').textContent.trim().startsWith(n)", arg=number
        )

    first = titles()
    # Nothing was clicked: the embeddings are made by themselves, and no tile has moved.
    page.wait_for_function(
        "document.querySelector('.amw-ranking-note').textContent.includes('No anomaly is labelled yet')"
    )
    page.wait_for_selector(".amw-train:enabled")
    assert page.inner_text(".amw-stale") == "Ranked by novelty: refresh"
    assert titles() == first

    page.click('.amw-tile[data-index="0"] .amw-image')
    place = page.locator(".amw-tile").nth(0).bounding_box()
    page.keyboard.press("a")
    page.wait_for_function(
        "document.querySelector('.amw-ranking-note').textContent.includes('1 anomaly')", timeout=10_000
    )
    assert titles() == first
    assert page.locator(".amw-tile").nth(0).bounding_box() == place
    turn("PageDown", "2")
    scores = page.eval_on_selector_all(".amw-tile .amw-score", "all => all.map(e => Number(e.textContent))")
    assert len(scores) == 48
    assert scores == sorted(scores, reverse=True)
    second = titles()
    assert not set(first) & set(second)
    assert not page.locator(".amw-stale").count()
    ranked = json.loads(nb.ask("import json; print(json.dumps([c.image_id for c in session.query(96)]))"))
    assert second == [i for i in ranked if i not in first][:48]

    # A label on this page: the next one follows it too, and this one stays as it is.
    page.keyboard.press("a")
    page.wait_for_function(
        "document.querySelector('.amw-ranking-note').textContent.includes('2 anomalies')", timeout=10_000
    )
    turn("PageUp", "1")
    assert titles() == first
    turn("PageDown", "2")
    assert titles() == second

    page.hover('.amw-tile[data-index="3"] .amw-image')
    page.click('.amw-tile[data-index="3"] .amw-like')
    page.wait_for_selector(".amw-similar-to")
    assert page.inner_text(".amw-similar-to") == f"Similar to {second[3]}"
    similar = titles()
    assert similar[0] == second[3]
    wanted = nb.ask(f"print(json.dumps([c.image_id for c in session.similar({second[3]!r}, 47)]))")
    assert similar[1:] == json.loads(wanted)
    page.click(".amw-back")
    page.wait_for_selector(".amw-ranking-note")
    assert titles() == second
    page.keyboard.press("m")  # on the tile of the cursor, the first
    page.wait_for_selector(".amw-similar-to")
    assert titles()[0] == second[0]
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-ranking-note")
    assert titles() == second
    assert not page.locator(".amw-message").count()


def test_a_whole_first_hunt_on_galaxies(notebook, galaxies, light, tmp_path):
    with (galaxies / "classes.csv").open(newline="") as file:
        truth = {row["filename"]: row["class"] for row in csv.DictReader(file)}
    shortlist = tmp_path / "found" / "shortlist.csv"
    shortlist.parent.mkdir()
    nb = notebook(
        [
            (
                "import amatch_widgets as am\n"
                f"source = am.open_source({str(galaxies / 'images')!r})\n"
                f"session = am.Session(source, train={light},\n"
                f"                     path={str(tmp_path / 'run')!r})"
            ),
            "session",
        ]
    )
    page = ready(nb)

    def label_page():
        titles = page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")
        page.click('.amw-tile[data-index="0"] .amw-image')
        for title in titles:
            page.keyboard.press("a" if truth[title.rsplit("/")[-1]] == "edge_on" else "n")
        page.wait_for_function(
            'document.querySelectorAll(\'.amw-tile[data-kept="yes"]:not([data-label=""])\').length'
            f" === {len(titles)}"
        )
        return sum(truth[t.rsplit("/")[-1]] == "edge_on" for t in titles)

    assert label_page() >= 2
    page.wait_for_selector(".amw-next.amw-call")  # all is labelled: on to the next page
    ground = "e => getComputedStyle(e).backgroundColor"
    assert page.eval_on_selector(".amw-next", ground) != page.eval_on_selector(".amw-previous", ground)
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    page.fill(".amw-steps", "20")
    page.click('.amw-tile[data-index="0"] .amw-image')
    page.keyboard.press("Shift+T")
    page.wait_for_selector(".amw-stop:enabled")
    assert not page.is_enabled(".amw-train")
    page.wait_for_function("document.querySelector('.amw-progress-text').textContent.includes('step')")
    # Labels never wait for the training.
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim().startsWith('2')")
    page.click('.amw-tile[data-index="0"] .amw-image')
    page.keyboard.press("n")
    page.wait_for_selector('.amw-tile[data-index="0"][data-label="normal"][data-kept="yes"]', timeout=5_000)
    page.wait_for_selector(".amw-train:enabled", timeout=120_000)
    assert page.locator(".amw-chart-losses polyline").count() == 3
    page.wait_for_selector(".amw-chart-scores rect")
    assert not page.locator(".amw-message.amw-error").count()

    serial = page.get_attribute(".amw-gallery", "data-serial")
    page.click(".amw-refresh")
    page.wait_for_function(
        "serial => document.querySelector('.amw-gallery').dataset.serial !== serial", arg=serial
    )
    page.wait_for_selector(".amw-tile .amw-score")
    scores = page.eval_on_selector_all(".amw-tile .amw-score", "all => all.map(e => Number(e.textContent))")
    assert scores == sorted(scores, reverse=True)
    assert not page.locator(".amw-tile:not([data-label=''])").count()
    label_page()
    page.fill(".amw-path", str(shortlist))
    page.fill(".amw-top", "25")
    page.click(".amw-do-export")
    page.wait_for_selector(".amw-message.amw-info")
    with shortlist.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    exported = [float(row["score"]) for row in rows]
    assert exported == sorted(exported, reverse=True)
