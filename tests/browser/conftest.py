from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
GALAXIES = REPO.parent / "shared" / "data" / "galaxyzoo1"

# The driver is a plain module beside the tests, since benchmarks/ uses it too; with pytest's
# import mode it is no package's member, so it is imported by its path.
_spec = importlib.util.spec_from_file_location("amatch_lab", Path(__file__).with_name("lab.py"))
lab_module = sys.modules["amatch_lab"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lab_module)


def missing(reason):
    """Skip, except in CI, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    lab = lab_module.Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = lab_module.chromium()
    if path is None:
        missing("no Chromium found; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=lab_module.CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def notebook(lab, browser):
    """Open a notebook: `notebook(cells, width=1280, height=800, theme="light")`."""
    contexts, errors = [], []

    def open_notebook(cells, *, width=1280, height=800, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return lab_module.Notebook(lab, page, cells, theme=theme)

    yield open_notebook
    for context in contexts:
        context.close()
    lab.stop_kernels()
    assert not errors, "errors in the browser"


@pytest.fixture
def galaxies():
    if not GALAXIES.is_dir():
        missing(f"the galaxy images are not there: {GALAXIES}")
    return GALAXIES


# A network so small that embedding a few hundred images takes a second.
LIGHT = 'am.TrainConfig(steps=3, backbone="test_resnet", weights="random", embed_px=32, device="cpu")'


@pytest.fixture
def light():
    """The text of a light training's configuration, for a cell."""
    return LIGHT


@pytest.fixture
def sky(tmp_path):
    """The cells that show a small demo sky with a few first labels."""
    return [
        (
            "import amatch_widgets as am\n"
            "import amatch_widgets.widgets\n"
            "source = am.demo.sky(400, seed=0, prevalence=0.05)\n"
            f"session = am.Session(source, path={str(tmp_path / 'run')!r}, labels=source.first_labels(),\n"
            f"                     train={LIGHT})"
        ),
        "session",
    ]
