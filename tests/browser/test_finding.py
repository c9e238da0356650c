"""Orders, filters and pages of the gallery: each lists what the session says, in a real JupyterLab."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.helper import cursor, show, tile, titles, wait_label


def listed(nb, how, *, n=48, first=0, seed=0, images="unlabelled", **only):
    """The ids that the session ranks from place `first` on."""
    return json.loads(
        nb.ask(
            "import json\nfrom amatch_widgets.session.selection import Filter\n"
            f"order = session.ranking({how!r}, show={images!r}, only=Filter(**{only!r}), seed={seed})\n"
            f"print(json.dumps([session.source.ids[int(i)] for i in order[{first}:{first + n}]]))"
        )
    )


def anew(page, act):
    """Do what makes a new list, and wait for it."""
    serial = page.get_attribute(".amw-gallery", "data-serial")
    act()
    page.wait_for_function("old => document.querySelector('.amw-gallery').dataset.serial !== old", arg=serial)


def chips(page):
    return page.eval_on_selector_all(
        ".amw-tile", "all => all.map(t => (t.querySelector('.amw-kind') || {}).textContent || '')"
    )


def test_each_order_lists_what_the_session_ranks_and_a_mixed_page_tells_what_is_left(notebook, sky):
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    # Enough labels for something to rise, and for a forecast.
    nb.ask(
        "free = [source.ids[int(i)] for i in session.ranking('highest', show='unlabelled')[:30]]\n"
        "for i in free:\n    session.label({i: 'anomaly' if source.truth[i] == 'anomaly' else 'normal'})\n"
        "session.query(1)"
    )
    for how in ("lowest", "uncertain", "random", "rising", "highest"):
        anew(page, lambda how=how: page.select_option(".amw-sort", how))
        assert page.input_value(".amw-show") == "unlabelled"
        ids = titles(page)
        assert ids == listed(nb, how), how
        assert len(set(ids)) == 48
        reason = tile(page, 0).locator(".amw-image").get_attribute("title").split("\n")[1]
        assert reason.startswith(f"{how}: rank "), reason
        if how == "rising":  # how far is written on the tiles
            assert re.fullmatch(r"(new: )?[\d,]+→[\d,]+", chips(page)[0])
        if how == "random":
            anew(page, lambda: page.click(".amw-refresh"))
            assert titles(page) == listed(nb, how, seed=1) != ids
        assert page.evaluate("document.activeElement.className") == "amw-gallery"

    anew(page, lambda: page.select_option(".amw-sort", "second look"))
    assert page.input_value(".amw-show") == "labelled"
    assert titles(page) == listed(nb, "second look", images="labelled")
    anew(page, lambda: page.select_option(".amw-sort", "highest"))
    anew(page, lambda: page.select_option(".amw-show", "unlabelled"))

    # A page of several kinds: the reason is on each tile that is not of the top.
    anew(page, lambda: page.select_option(".amw-sort", "mixed"))
    ids, kinds = titles(page), chips(page)
    assert {kind: kinds.count(kind) for kind in kinds} == {"": 30, "uncertain": 6, "diverse": 6, "audit": 6}
    top = [i for i, kind in zip(ids, kinds, strict=True) if not kind]
    assert top == [i for i in listed(nb, "highest", n=400) if i not in ids or i in top][:30]
    audits = {i for i, kind in zip(ids, kinds, strict=True) if kind == "audit"}
    drawn = nb.ask("print((session.path / 'audits.jsonl').read_text())")
    assert all(json.dumps(i) in drawn for i in audits)
    assert nb.ask("print(session.n_audits_open)") == "6"
    expect(page.locator(".amw-chart-text")).to_contain_text("6 audited images have no label yet")

    # Labelled, it tells what the next page is likely to bring and what is left to find.
    truth = json.loads(nb.ask("print(json.dumps(dict(source.truth)))"))
    tile(page, 0).locator(".amw-image").click()
    for i in ids:
        page.keyboard.press("a" if truth[i] == "anomaly" else "n")
    page.wait_for_function(
        "document.querySelectorAll('.amw-tile[data-kept=yes]:not([data-label=\"\"])').length === 48"
    )
    outlook = nb.ask("print(session.outlook_for(48))")
    assert re.match(r"Another 48 images are likely to bring (about \d+|none) \(95 %: \d+ to \d+\); ", outlook)
    assert re.search(r"(About|At most) [\d,]+ more .*95 %.* of all\. From 6 audited images, ", outlook)
    expect(page.locator(".amw-chart-text")).to_have_text(outlook)
    assert not page.locator(".amw-do-audit").count()
    assert nb.cells() == before


@pytest.fixture
def folder(tmp_path, light):
    """The cells that show a folder of 130 images, of which two cannot be read."""
    return [
        (
            "from pathlib import Path\nfrom PIL import Image\nimport amatch_widgets as am\n"
            f"images = Path({str(tmp_path / 'images')!r})\nimages.mkdir()\n"
            "sky = am.demo.sky(130, seed=0, size=32, prevalence=0.1)\n"
            "for k, i in enumerate(sky.ids):\n    Image.fromarray(sky.read(k)).save(images / f'{k:03}.png')\n"
            "for name in ('017.png', '111.png'):\n    (images / name).write_bytes(b'damaged')\n"
            f"session = am.Session(am.open_source(images), path={str(tmp_path / 'run')!r}, train={light},\n"
            "                     labels={'000.png': 'normal', '001.png': 'anomaly'})\n"
            "session.annotate(['003.png', '005.png'], star=True)\n"
            "session.annotate(['005.png', '007.png', '009.png'], add=['<b>ring</b>'])"
        ),
        "session",
    ]


def test_filters_show_all_that_passes_and_nothing_else(notebook, folder):
    nb = show(notebook, folder)
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    nb.ask("session.query(1)")  # and the scores by the labels
    anew(page, lambda: page.select_option(".amw-show", "starred"))
    assert set(titles(page)) == {"003.png", "005.png"}
    assert page.locator('.amw-tile[data-starred="yes"]').count() == 2
    anew(page, lambda: page.select_option(".amw-show", "problem"))
    assert set(titles(page)) == {"017.png", "111.png"}
    expect(page.locator(".amw-tile .amw-problem")).to_have_count(2)
    expect(page.locator(".amw-problem").first).to_contain_text("cannot be read")
    anew(page, lambda: page.select_option(".amw-show", "all"))

    # By tag, which is text and no markup, and by score; Esc in a field takes all of it away.
    page.click(".amw-filter-toggle")
    page.wait_for_function("document.activeElement.matches('.amw-contains')")
    anew(page, lambda: page.select_option(".amw-tagged", "<b>ring</b>"))
    assert set(titles(page)) == {"005.png", "007.png", "009.png"}
    expect(page.locator(".amw-found")).to_have_text("3 images")
    page.focus(".amw-least")
    anew(page, lambda: page.keyboard.press("Escape"))
    assert page.locator(".amw-filter").count() == 0
    assert page.evaluate("document.activeElement.className") == "amw-gallery"
    assert titles(page) == listed(nb, "highest", images="all")

    scores = json.loads(
        nb.ask("import numpy as np; print(json.dumps(np.nanquantile(session.scores, [0.3, 0.6]).tolist()))")
    )
    least, most = (round(score, 3) for score in scores)
    page.keyboard.press("f")
    page.fill(".amw-least", str(least))
    anew(page, lambda: page.keyboard.press("Enter"))
    page.fill(".amw-most", str(most))
    anew(page, lambda: page.keyboard.press("Enter"))
    ids = titles(page)
    assert ids == listed(nb, "highest", images="all", least=least, most=most)
    assert 20 < len(ids) < 48
    shown = page.eval_on_selector_all(".amw-score", "all => all.map(e => Number(e.textContent))")
    assert least <= min(shown)
    assert max(shown) <= most
    page.fill(".amw-most", "0")  # below the least: refused, and the list stays
    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-message.amw-error:has-text('allowed are scores from 0 to 1')")
    assert titles(page) == ids
    anew(page, lambda: page.click(".amw-unfilter"))
    assert nb.cells() == before


def test_pages_their_size_and_images_like_several_are_a_click_away(notebook, folder):
    nb = show(notebook, folder)
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    nb.ask("session.query(1)")  # and the scores by the labels
    anew(page, lambda: page.select_option(".amw-show", "all"))
    assert page.inner_text(".amw-page-number") == "1 / 3"
    assert page.is_disabled(".amw-previous")
    for _ in range(2):
        anew(page, lambda: page.click(".amw-next"))
    assert titles(page) == listed(nb, "highest", images="all", first=96)
    assert page.is_disabled(".amw-next")
    anew(page, lambda: page.click(".amw-previous"))
    assert page.inner_text(".amw-page-number") == "2 / 3"
    assert titles(page) == listed(nb, "highest", images="all", first=48)
    anew(page, lambda: page.select_option(".amw-per-page", "24"))
    assert page.inner_text(".amw-page-number") == "3 / 6"  # with the same image in front
    assert titles(page) == listed(nb, "highest", images="all", first=48, n=24)
    page.locator('.amw-size[title^="small"]').click()
    widths = []
    for size in ("small", "medium", "large"):
        page.click(f'.amw-size[title^="{size}"]')
        page.wait_for_selector(f'.amw-size[title^="{size}"][aria-pressed="true"]')
        widths.append(tile(page, 0).bounding_box()["width"])
    assert widths == sorted(set(widths))
    anew(page, lambda: page.select_option(".amw-per-page", "96"))
    expect(page.locator(".amw-tile")).to_have_count(96)
    assert page.inner_text(".amw-page-number") == "1 / 2"

    # More like several, by the key.
    ids = titles(page)
    tile(page, 1).locator(".amw-image").click()
    tile(page, 3).locator(".amw-image").click(modifiers=["Shift"])
    anew(page, lambda: page.keyboard.press("m"))
    assert page.inner_text(".amw-similar-to") == "Similar to 3 images"
    wanted = nb.ask(f"print(json.dumps([c.image_id for c in session.similar({ids[1:4]!r}, 93)]))")
    assert titles(page) == ids[1:4] + json.loads(wanted)
    anew(page, lambda: page.click(".amw-back"))
    assert titles(page) == ids

    # A refresh by its button makes the list anew: what was labelled is no longer listed.
    anew(page, lambda: page.select_option(".amw-show", "unlabelled"))
    gone = titles(page)[0]
    tile(page, 0).locator(".amw-n").click()
    wait_label(page, 0, "normal")
    anew(page, lambda: page.click(".amw-refresh"))
    assert gone not in titles(page)
    assert cursor(page) == 0
    assert nb.cells() == before
