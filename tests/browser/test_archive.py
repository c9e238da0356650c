"""An archive looked through and labelled while it is scored, in a real JupyterLab."""

from __future__ import annotations

from tests.browser.helper import cursor, labels, ready, titles, wait_label

TOTAL = "n => document.querySelector('.amw-rank')?.textContent.trim().endsWith(`of ${n}`)"


def cells(tmp_path, light):
    """A session that is embedded, and an archive of which 128 images can be read before `survey.go_on`."""
    return [
        (
            "import threading\n"
            "import amatch_widgets as am\n"
            "import amatch_widgets.widgets\n"
            "import amatch_widgets.session.scoring as scoring\n"
            "class Survey(am.demo.DemoSource):\n"
            "    go_on = threading.Event()\n"
            "    def read(self, index, *, min_side=None):\n"
            "        assert index < 128 or self.go_on.wait(120)\n"
            "        return super().read(index, min_side=min_side)\n"
            "survey = Survey(300, seed=5, prevalence=0.05)\n"
            "scoring.part_rows_for = lambda *_: 64\n"
            "source = am.demo.sky(200, seed=0, prevalence=0.05)\n"
            f"train = {light[:-1]}, score_batch=16)\n"
            f"session = am.Session(source, path={str(tmp_path / 'run')!r}, labels=source.first_labels(),\n"
            "                     train=train)\n"
            "two_parts = threading.Event()\n"
            "def listen(event):\n"
            "    if isinstance(event, am.events.ScoringProgress) and event.done >= 128:\n"
            "        two_parts.set()\n"
            "session.hub.subscribe(listen)\n"
            "session.embed()\n"
            "session.wait()"
        ),
        "session",
        f"session.close()\nagain = am.Session.open({str(tmp_path / 'run')!r})",
        "again",
    ]


def test_an_archive_is_looked_through_and_labelled_while_it_is_scored(notebook, light, tmp_path):
    nb = notebook(cells(tmp_path, light))
    page = ready(nb)
    assert not page.locator(".amw-place").count()
    assert nb.ask("session.score(survey); assert two_parts.wait(60)") == ""

    page.wait_for_selector(".amw-place")
    page.select_option(".amw-place", label="sky-5 (300)")
    page.wait_for_selector('.amw-tile[title^="sky-5-"] img')
    page.wait_for_function(TOTAL, arg="128")
    assert "128 of 300 images are scored" in page.inner_text(".amw-ranking-note")
    assert page.locator(".amw-sort option").count() == 6  # no mixed page, and no second look

    page.click(".amw-tile .amw-image")
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelector('.amw-page-number').textContent.trim() === '2 / 3'")
    first, second = titles(page)[:2]
    page.keyboard.press("a")
    wait_label(page, 0, "anomaly")
    page.keyboard.press("n")
    wait_label(page, 1, "normal")
    assert cursor(page) == 2
    kept = labels(tmp_path)
    assert (kept[first], kept[second]) == ("anomaly", "normal")
    page.keyboard.press("n")
    wait_label(page, 2, "normal")
    page.keyboard.press("z")
    wait_label(page, 2, "")

    page.keyboard.press("Enter")
    page.wait_for_selector(".amw-detail img")
    assert "sky-5" in page.inner_text(".amw-detail")
    page.keyboard.press("Escape")

    # It still waits for its images; then all of them are there at a click.
    assert nb.ask("print(session.job); survey.go_on.set()") == "score"
    page.wait_for_function("document.querySelector('.amw-stale')?.textContent.startsWith('More scores')")
    assert nb.ask("session.wait(60)") == ""
    assert titles(page)[:2] == [first, second]
    page.keyboard.press("r")
    page.wait_for_function(TOTAL, arg="298")
    more_like_it(page)

    page.select_option(".amw-show", "labelled")
    page.wait_for_function(TOTAL, arg="2")
    reopened(nb, first, second)


def more_like_it(page):
    """Nothing of the archive is embedded; then all of it is, at a click, and like images are listed."""
    model = titles(page)[0]
    page.keyboard.press("Home")
    page.keyboard.press("m")
    page.wait_for_selector('.amw-among:text("is embedded yet")')
    assert titles(page) == [model]
    page.click(".amw-offer")
    page.wait_for_selector('.amw-stale:text("more embedded")')
    page.wait_for_selector(".amw-offer", state="detached")
    page.keyboard.press("r")
    page.wait_for_function(TOTAL, arg="192")
    assert titles(page)[0] == model
    assert page.inner_text(".amw-among") == "among all images of sky-5"
    page.keyboard.press("Escape")
    page.wait_for_function(TOTAL, arg="298")


def reopened(nb, first, second):
    """Reopened, all of it is there, and the history leads to it."""
    nb.run(2)
    assert "Error" not in nb.output(2), nb.output(2)
    nb.run(3)
    cell = nb.page.locator(".jp-Cell").nth(3)
    cell.locator(".amw-tile img").first.wait_for()
    cell.locator(".amw-past-toggle").click()
    cell.locator(f'.amw-past-id:text-is("{second}")').first.click()
    cell.locator(f'.amw-cursor[title="{second}"][data-label="normal"]').wait_for()
    assert cell.locator(".amw-place").input_value() == second.partition("::")[0]
    cell.locator(".amw-show").select_option("labelled")
    cell.locator('.amw-page-number:text("1 / 1")').wait_for()
    marks = cell.locator(".amw-tile").evaluate_all("tiles => tiles.map(t => [t.title, t.dataset.label])")
    assert dict(marks) == {first: "anomaly", second: "normal"}
