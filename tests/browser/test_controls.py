"""Training by the buttons, and what is written at their side, in a real JupyterLab."""

from __future__ import annotations

import csv
import re

from playwright.sync_api import expect

from tests.browser.helper import show, wait_label

# What the state and the progress have read so far, though it be for one frame only.
WATCH = """() => {
    window.read = new Set();
    const look = () => document.querySelectorAll(".amw-state, .amw-progress-text").forEach(
        (e) => window.read.add(e.textContent));
    new MutationObserver(look).observe(
        document.querySelector(".amw-controls"), { childList: true, characterData: true, subtree: true });
}"""


def has_read(page, text):
    """Wait until something was written that begins with this."""
    page.wait_for_function("text => [...window.read].some((r) => r.startsWith(text))", arg=text)


def export_by_keys(page, path):
    page.focus(".amw-gallery")
    page.keyboard.press("e")
    page.keyboard.insert_text(str(path))
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    expect(page.locator(".amw-message.amw-info")).to_be_in_viewport()


def steps_done(page):
    return int(re.match(r"step (\d+)", page.inner_text(".amw-progress-text"))[1])


def test_a_training_is_paused_resumed_and_stopped_then_all_is_scored_and_exported(notebook, sky, tmp_path):
    shortlist = tmp_path / "out" / "<b>short<b> list.csv"
    shortlist.parent.mkdir()
    nb = show(notebook, sky)
    page, before = nb.page, nb.cells()
    page.wait_for_selector(".amw-train:enabled")  # the embeddings are there
    page.evaluate(WATCH)
    page.fill(".amw-steps", "5000")
    page.click(".amw-train")
    page.wait_for_function(
        r"/^step \d+ of 5,000 · [\d.e+]+ steps\/s · .*\d (s|min|h) left$/.test("
        "document.querySelector('.amw-progress-text').textContent)"
    )
    assert page.inner_text(".amw-state") == "Training"
    for button in (".amw-train", ".amw-score-all"):
        assert page.is_disabled(button)
    page.locator(".amw-pause").press("Enter")  # it takes no key with it when it is disabled
    assert page.evaluate("document.activeElement.matches('.amw-gallery')")
    page.wait_for_selector(".amw-state:text-is('Paused')")
    assert nb.ask("print(session.state)") == "paused"
    assert page.is_disabled(".amw-pause")
    assert not page.locator(".amw-train").count()
    step = steps_done(page)

    # While it waits, labels are given as ever.
    page.keyboard.press("n")
    wait_label(page, 0, "normal")
    assert steps_done(page) == step
    page.keyboard.press("Shift+T")
    page.wait_for_function(
        "n => parseInt(document.querySelector('.amw-progress-text').textContent.slice(5)) > n", arg=step + 1
    )
    assert nb.ask("print(session.state)") == "running"
    page.click(".amw-stop")
    page.wait_for_selector(".amw-train:enabled")
    has_read(page, "Stopping after this step")
    expect(page.locator(".amw-state")).to_have_text("Ready")
    expect(page.locator(".amw-progress-text")).to_have_text("")
    n_steps = int(nb.ask("print(session.history.steps[-1].step)"))
    assert step < n_steps < 5000
    assert page.is_disabled(".amw-stop")

    # With the model that is kept.
    version = nb.ask("print(session.scores_version)")
    page.evaluate("window.read.clear()")
    page.click(".amw-score-all")
    has_read(page, "Scoring")
    page.wait_for_selector(".amw-score-all:enabled")
    assert nb.ask("print(session.scores_version)") != version
    assert not page.locator(".amw-message").count()

    page.fill(".amw-path", " ")
    page.click(".amw-do-export")
    page.wait_for_selector(".amw-message.amw-error:has-text('Type the name of the CSV file to write')")
    page.fill(".amw-top", "7")
    export_by_keys(page, shortlist)
    expect(page.locator(".amw-message.amw-info .amw-message-text")).to_have_text(
        f"The shortlist is in {shortlist}"
    )
    with shortlist.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 7
    assert nb.cells() == before
