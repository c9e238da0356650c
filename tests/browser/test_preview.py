"""How the model sees the images, tried out and used in a real JupyterLab."""

from __future__ import annotations

import pytest

from tests.browser.helper import show

IMAGES = ".amw-pre-image img"


@pytest.fixture
def survey(tmp_path, light):
    """The cells that show a session on faint images of four named bands."""
    return [
        (
            "import numpy as np\n"
            "import amatch_widgets as am\n"
            "import amatch_widgets.widgets\n"
            "sky = am.demo.sky(60, seed=0, prevalence=0.1)\n"
            "flux = np.stack([sky.read(i) for i in range(60)]).astype(np.float32) ** 2\n"
            "source = am.open_source(np.concatenate([flux, flux[..., :1] / 9], axis=3))\n"
            "source.bands = ('VIS', 'Y', '<b>J</b>', 'H')\n"
            f"session = am.Session(source, path={str(tmp_path / 'run')!r}, labels={{'03': 'anomaly'}},\n"
            f"                     train={light})"
        ),
        "session",
    ]


def src(page):
    return page.eval_on_selector_all(IMAGES, "images => images.map(i => i.src)")


def wait_images(page, other_than=()):
    page.wait_for_function(
        """([selector, old]) => {
            const now = [...document.querySelectorAll(selector)].map(i => i.src);
            return now.length === 14 && !now.some((s, k) => s === old[k]);
        }""",
        arg=[IMAGES, list(other_than)],
    )
    return src(page)


def test_bands_and_stretch_are_tried_out_then_used(notebook, survey):
    nb = show(notebook, survey, width=1280)
    page = nb.page
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    page.click(".amw-pre-toggle")
    plain = wait_images(page)
    assert page.inner_text(".amw-pre-facts").split()[:4] == ["size", "64", "x", "64"]
    assert page.is_disabled(".amw-pre-use")
    assert page.inner_text(".amw-pre-why") == "This is what the model sees."

    page.select_option(".amw-pre-stretch", "asinh")
    stretched = wait_images(page, plain)
    page.select_option(".amw-pre-bands", label="red, green, blue")
    page.wait_for_selector(".amw-pre-band-2")
    assert page.eval_on_selector_all(".amw-pre-band-0 option", "o => o.map(e => e.textContent)") == [
        "VIS",
        "Y",
        "<b>J</b>",
        "H",
    ]
    mixed = wait_images(page, stretched)
    assert nb.ask("print(session.image.stretch)") == "linear"  # nothing is used yet

    page.fill(".amw-pre-size", "4")
    page.keyboard.press("Tab")
    page.wait_for_selector(".amw-messages")
    assert "allowed is a whole number from 8 to 1024" in page.inner_text(".amw-messages")
    page.wait_for_function("document.querySelector('.amw-pre-size').value === '64'")
    assert src(page) == mixed

    page.click(".amw-pre-use")
    page.wait_for_function(
        "document.querySelector('.amw-pre-why').textContent === 'This is what the model sees.'"
    )
    page.wait_for_selector(".amw-train:enabled")
    assert nb.ask("print(session.image.stretch, session.image.mixture, session.is_embedded)") == (
        "asinh H, Y, VIS True"
    )
    page.click(".amw-pre-toggle")
    page.wait_for_selector(".amw-preview", state="detached")


def test_keys_in_its_fields_reach_neither_jupyterlab_nor_the_gallery(notebook, survey):
    nb = show(notebook, survey)
    page = nb.page
    before = nb.cells()
    page.click(".amw-pre-toggle")
    wait_images(page)
    page.focus(".amw-pre-stretch")
    for key in ("b", "x", "d", "d", "n", "Escape"):
        page.keyboard.press(key)
    assert nb.cells() == before
    assert nb.ask("print(len(session.labels))") == "1"
