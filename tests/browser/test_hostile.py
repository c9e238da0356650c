"""Hostile text in every view: it is shown as it is typed, and nothing of it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.helper import HOSTILE, is_inert, show, titles

ODD = [
    "new\nline.png",
    "__proto__.png",
    "x" * 240 + ".png",
    "日本語 🌌 é.png",
]
FLAT = " ".join(text.replace("/", "|") for text in HOSTILE[:4])  # the name of a folder


@pytest.fixture
def folder(tmp_path):
    """A folder of images with such names, each with a twin, and one that is broken."""
    folder = tmp_path / FLAT / "images"
    rng = np.random.default_rng(0)
    for name in [f"{text}.png" for text in HOSTILE] + ODD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        image.save(folder / name)
        (folder / "twins" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "twins" / name[-200:])
    (folder / f"broken {HOSTILE[0]}.png").write_bytes(b"")
    return folder


@pytest.fixture
def cells(folder, light):
    """The cells that show a session in which all that can be said is such a text."""
    run, other = (folder.parent / name for name in ("run", f"of {HOSTILE[0]}"))
    return [
        f"""
import json
import amatch_widgets as am
from amatch_widgets import events
from amatch_widgets.images.files import FolderSource
from amatch_widgets.widgets import Detail

HOSTILE = {HOSTILE!r}

class Source(FolderSource):
    bands = tuple(HOSTILE[:3])

    def describe(self, index):
        return dict(zip(HOSTILE, HOSTILE))

    def position(self, index):
        return 150.0, 2.0

light = {light}
source = Source({str(folder)!r}, name=HOSTILE[0])
ids = [i for i in source.ids if not i.startswith(("broken", "twins"))]
with am.Session(source, path={str(other)!r}, train=light, annotator=HOSTILE[0]) as theirs:
    theirs.label({{i: "normal" for i in ids[:4]}}, reason=HOSTILE[1])
session = am.Session(source, path={str(run)!r}, train=light, annotator=HOSTILE[3])
for text in HOSTILE:
    session.label({{ids[0]: "anomaly"}}, by=text, tags=HOSTILE, note=text, reason=text)
session.label({{ids[1]: "anomaly", ids[4]: "normal"}}, tags=HOSTILE, note=HOSTILE[0])
""",
        "board = session.show()\nboard.gallery.choose(show='all', per_page=24)\nboard",
    ]


@pytest.fixture
def opened(notebook, cells):
    """The dashboard, all images embedded; at the end, nothing may have run."""
    nb = show(notebook, cells, height=1000)
    dialogs = []
    nb.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    nb.page.wait_for_selector(".amw-train:enabled")
    yield nb
    assert is_inert(nb.page)
    assert dialogs == []


def texts(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(e => e.textContent.trim())")


def tooltips(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(e => e.title)")


def to_tile(page, image_id):
    return page.locator(f'.amw-tile[data-index="{titles(page).index(image_id)}"]')


def ids_of(nb, names="ids"):
    return json.loads(nb.ask(f"print(json.dumps(list({names})))"))


def test_tiles_tags_filters_and_banners(opened, folder):
    nb, page = opened, opened.page
    ids, first = ids_of(nb, "source.ids"), ids_of(nb)[0]
    assert {f"{text}.png" for text in HOSTILE} | set(ODD) <= set(ids)
    page.click(".amw-refresh")  # by the embeddings, which tell the twins
    page.wait_for_selector(".amw-twins")
    assert set(titles(page)) == set(ids)
    assert texts(page, ".amw-name") == [HOSTILE[0]]
    assert tooltips(page, ".amw-name") == [str(folder.parent / "run")]
    assert page.input_value(".amw-by input") == HOSTILE[3]
    assert f"Looks the same as:\ntwins/{HOSTILE[5]}.png" in tooltips(page, ".amw-twins")
    assert to_tile(page, first).locator(".amw-flag-tag").all_inner_texts() == HOSTILE
    note = to_tile(page, first).locator(".mdi-note-text-outline")
    assert note.get_attribute("title") == HOSTILE[-1]
    to_tile(page, first).locator(".amw-image").click()
    page.wait_for_function("t => document.querySelector('.amw-id').textContent === t", arg=first)

    page.keyboard.press("f")
    assert set(texts(page, ".amw-tagged option")) == {"any tag", *HOSTILE}
    page.select_option(".amw-tagged", HOSTILE[2])
    page.wait_for_function("document.querySelectorAll('.amw-tile').length === 3")
    page.click(".amw-unfilter")
    page.wait_for_function(f"document.querySelectorAll('.amw-tile').length === {len(ids)}")
    to_tile(page, first).locator(".amw-image").click()
    page.keyboard.press("t")
    page.wait_for_selector(".amw-chip")
    assert [chip.removesuffix("✕").strip() for chip in texts(page, ".amw-chip")] == HOSTILE
    assert tooltips(page, ".amw-chip .amw-x")[0] == f"Remove the tag {HOSTILE[0]}"
    page.click(".amw-tags-done")

    to_tile(page, first).locator(".amw-image").click()
    page.keyboard.press("m")
    page.wait_for_selector(".amw-similar-to")
    assert page.inner_text(".amw-similar-to") == f"Similar to {first}"
    page.click(".amw-back")
    page.wait_for_selector(".amw-similar-to", state="detached")
    nb.ask("board.gallery.show_images(ids, HOSTILE[1])")
    page.wait_for_selector(".amw-similar-to")
    assert tooltips(page, ".amw-similar-to") == [HOSTILE[1]]


def test_problems_messages_and_paths(opened, folder):
    nb, page = opened, opened.page
    page.click(".amw-problems-toggle")
    assert texts(page, ".amw-problem-id") == [f"broken {HOSTILE[0]}.png"]
    nb.ask("for text in HOSTILE: session.hub.publish(events.Message('warning', text))")
    page.wait_for_function("document.querySelectorAll('.amw-message.amw-warning').length === 6")
    assert texts(page, ".amw-message.amw-warning .amw-message-text") == HOSTILE[::-1]
    target = folder.parent / f"{HOSTILE[0]}.csv"
    page.fill(".amw-path", str(target))
    page.fill(".amw-top", "")
    page.click(".amw-do-export")
    page.wait_for_selector(".amw-message.amw-info")
    assert texts(page, ".amw-message.amw-info .amw-message-text") == [f"The shortlist is in {target}"]
    assert target.is_file()
    below = f"{target}/{HOSTILE[2]}.csv"
    page.fill(".amw-path", below)
    page.click(".amw-do-export")
    page.wait_for_selector(".amw-message.amw-error")
    assert repr(below) in texts(page, ".amw-message.amw-error .amw-message-text")[0]


def test_the_detail_and_the_history(opened):
    nb, page = opened, opened.page
    first = ids_of(nb)[0]
    to_tile(page, first).locator(".amw-image").click(click_count=2)
    page.wait_for_selector('.amw-detail[data-shown="yes"]')
    page.wait_for_selector(".amw-d-near")
    assert page.inner_text(".amw-d-id") == first
    page.wait_for_function(
        "n => document.querySelectorAll('.amw-d-side dd').length >= n", arg=len(HOSTILE) + 3
    )
    assert [name for name in texts(page, ".amw-d-side dt") if name in HOSTILE] == HOSTILE
    assert [text for text in tooltips(page, ".amw-d-side dd") if text in HOSTILE] == HOSTILE
    assert texts(page, ".amw-d-channel option")[1:] == HOSTILE[:3]
    lines = texts(page, ".amw-d-line")
    assert len(lines) == len(HOSTILE)
    for line, text in zip(lines, HOSTILE[::-1], strict=True):
        assert f"by {text}" in line
        assert f"{text}; {', '.join(HOSTILE)}; {text}" in line
    near = {text.rpartition(": ")[0] for text in tooltips(page, ".amw-d-near")}
    assert near <= set(ids_of(nb))
    links = page.eval_on_selector_all(".amw-d-links a", "all => all.map(e => e.protocol)")
    assert links == ["https:", "https:"]
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")

    page.click(".amw-past-toggle")
    page.wait_for_selector(".amw-past-row")
    for part in (".amw-past-by option", ".amw-past-who", ".amw-past-reason"):
        assert set(HOSTILE) <= set(texts(page, part))
    assert {f"+ {HOSTILE[0]}", f"note: {HOSTILE[1]}"} <= set(texts(page, ".amw-past-more"))
    assert first in texts(page, ".amw-past-id")


def test_the_merge_with_a_session_whose_folder_and_annotator_are_such_texts(opened, folder):
    nb, page = opened, opened.page
    page.click(".amw-past-toggle")
    page.click(".amw-merge-toggle")
    base = json.loads(nb.ask("print(json.dumps(str(board.past.merge._base)))"))
    for text in HOSTILE:
        page.fill(".amw-merge-path", text)
        page.click(".amw-do-compare")
        page.wait_for_function(
            "t => (document.querySelector('.amw-merge-problem') || document).textContent?.startsWith(t)",
            arg=f"There are no labels to merge in {str(Path(base, text))!r}",
        )
    page.fill(".amw-merge-path", str(folder.parent / f"of {HOSTILE[0]}"))
    page.click(".amw-do-compare")
    page.wait_for_selector(".amw-do-merge")
    assert set(texts(page, ".amw-merge-id")) == set(ids_of(nb)[:2])
    assert HOSTILE[0] in texts(page, ".amw-merge-theirs")[0]
    page.click(".amw-do-merge")
    page.wait_for_selector(".amw-merge-words:has-text('Taken over')")
    page.click(".amw-do-list")
    page.wait_for_selector(".amw-similar-to")
    assert page.inner_text(".amw-similar-to") == f"Disagreements with of {HOSTILE[0]}"


def test_the_preview_and_the_map(opened):
    nb, page = opened, opened.page
    page.click(".amw-pre-toggle")
    page.wait_for_function("document.querySelectorAll('.amw-pre-tile').length >= 12")
    assert set(tooltips(page, ".amw-pre-tile")) <= set(ids_of(nb, "source.ids"))
    assert f"{', '.join(HOSTILE[:3])}, as they are" in texts(page, ".amw-pre-bands option")
    page.select_option(".amw-pre-bands", "3")
    page.wait_for_selector(".amw-pre-band-2")
    assert texts(page, ".amw-pre-band-0 option") == HOSTILE[:3]
    page.click(".amw-pre-toggle")

    page.click(".amw-side-map")
    page.wait_for_selector('.amw-map[data-drawn="1"]')
    said = nb.ask("found = session.map(); print(json.dumps([found.image_ids, found.xy.tolist()]))")
    places = dict(zip(*json.loads(said), strict=True))
    x, y = places[ids_of(nb)[0]]
    frame = page.locator(".amw-map-canvas").bounding_box()
    page.mouse.move(frame["x"] + 12 + x * (frame["width"] - 24), frame["y"] + 12 + y * (frame["height"] - 24))
    page.wait_for_selector(".amw-map-tip b")
    assert page.inner_text(".amw-map-tip b") in places


def test_parts_alone(notebook, cells):
    alone = (
        "import ipywidgets\n"
        "gallery = am.Gallery(session)\ngallery.choose(show='all', per_page=24)\n"
        "ipywidgets.VBox([gallery, Detail(session).show(ids[0]), am.Preview(session), am.Controls(session)])"
    )
    nb = show(notebook, [cells[0], alone], height=1000)
    page = nb.page
    page.wait_for_selector('.amw-detail[data-shown="yes"]')
    first = ids_of(nb)[0]
    assert page.inner_text(".amw-d-id") == first
    assert f"{HOSTILE[5]}.png" in titles(page)
    assert set(HOSTILE) <= set(tooltips(page, ".amw-d-side dd"))
    page.wait_for_selector(".amw-pre-tile")
    nb.ask("for text in HOSTILE: session.hub.publish(events.Failed('train', text))")
    said = ".amw-controls .amw-message-text"
    page.wait_for_function("s => document.querySelectorAll(s).length === 6", arg=said)
    assert texts(page, said) == [f"Training failed: {text}" for text in HOSTILE[::-1]]
    assert is_inert(page)
