from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
GALAXIES = REPO.parent / "shared" / "data" / "galaxyzoo1"


# The drivers are plain modules beside the tests, since benchmarks/ uses them too; with pytest's
# import mode they are no package's members, so they are imported by their paths.
def _driver(name):
    spec = importlib.util.spec_from_file_location(
        f"amatch_{name}", Path(__file__).with_name(name).with_suffix(".py")
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lab_module, labeller_module, proxy_module = map(_driver, ("lab", "labeller", "proxy"))


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

    def open_notebook(cells, *, width=1280, height=800, theme="light", url=""):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return lab_module.Notebook(lab, page, cells, theme=theme, url=url)

    yield open_notebook
    for context in contexts:
        context.close()
    lab.stop_kernels()
    assert not errors, "errors in the browser"


@pytest.fixture
def proxy(lab):
    proxy = proxy_module.SlowProxy(lab.port)
    yield proxy
    proxy.close()


@pytest.fixture
def labelling():
    """The module with the scripted user and the reader of journals."""
    return labeller_module


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
