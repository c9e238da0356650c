"""The report in a browser: nothing in it runs or asks for anything, whatever the images are called."""

from __future__ import annotations

import pytest

from amatch_widgets.demo import DemoSource
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session import Session
from tests.browser.helper import HOSTILE, ready, tile, wait_label


@pytest.fixture
def report(tmp_path):
    light = TrainConfig(backbone="test_resnet", weights="random", embed_px=32, device="cpu")
    source = DemoSource(60, size=32, prevalence=0.2)
    source.ids = [*HOSTILE, *source.ids[len(HOSTILE) :]]
    source.name = HOSTILE[0]
    session = Session(source, path=tmp_path / "run", train=light)
    for k, attack in enumerate(HOSTILE * 4):
        session.label(
            {attack: "anomaly" if k % 2 else "normal"}, by=attack, tags=[attack], note=attack, reason=attack
        )
    session.embed()
    session.wait()
    session.query(1)
    yield session.report(n=60)
    session.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_runs_and_nothing_is_asked_for(browser, report, theme):
    context = browser.new_context(color_scheme=theme)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    assert page.evaluate("window.hit") is None
    assert page.locator("script, iframe, [onerror], [onload], [onmouseover]").count() == 0
    assert page.locator("h1").inner_text() == HOSTILE[0]
    page.locator("summary").first.click()
    page.locator("td", has_text="onmouseover").first.hover()
    assert page.evaluate("window.hit") is None
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []

    # Even a script that got in would not run.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 6'}))"
    )
    assert page.evaluate("window.hit") is None

    # Each picture and figure is drawn, in the colours of the theme.
    broken = "images => images.filter(i => !(i.complete && i.naturalWidth)).length"
    assert page.locator("img").count() == 60
    assert page.locator("img").evaluate_all(broken) == 0
    ground, ink = (
        page.evaluate(f"getComputedStyle(document.{of}).{name}")
        for of, name in (("body", "backgroundColor"), ("querySelector('svg text')", "fill"))
    )
    assert (sum(map(int, ground[4:-1].split(", "))) > 400) == (theme == "light")
    assert ground != ink
    context.close()


def test_the_button_of_the_dashboard_writes_it_and_says_where(notebook, sky, tmp_path):
    opened = notebook(sky)
    opened.run(0)
    opened.run(1)
    opened.page.click(".amw-do-report")
    opened.page.wait_for_selector(".amw-message-text:has-text('The report is in')")
    assert "</html>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_figures_are_drawn_while_the_labelling_goes_on_and_it_is_said_where_they_are(
    notebook, sky, tmp_path
):
    opened = notebook(sky, width=1024, height=768)
    page = ready(opened)
    edge = page.locator(".amw-right").bounding_box()
    for button in ("export", "report", "figures"):
        box = page.locator(f".amw-do-{button}").bounding_box()
        assert box["x"] + box["width"] <= edge["x"] + edge["width"] + 0.5
    assert page.locator(".amw-path").bounding_box()["width"] > 60
    page.click(".amw-do-figures")
    tile(page, 0).locator(".amw-a").click()
    wait_label(page, 0, "anomaly")
    page.wait_for_selector(".amw-message-text:has-text('The figures are in')")
    kinds = ("metrics", "discovery", "histogram", "sheet")
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert drawn == {f"{kind}.{form}" for kind in kinds for form in ("png", "svg", "pdf")}
