"""What a scripted user asks for by keys is in the journal, once each and in order, whatever happens."""

from __future__ import annotations

import os
import signal

from playwright.sync_api import expect

from tests.browser.helper import ready, tile


def test_no_key_is_lost_or_doubled_over_pages_ranges_and_undo(notebook, sky, labelling, tmp_path):
    page = ready(notebook(sky))
    path = tmp_path / "run" / "labels.jsonl"
    first = labelling.journal(path)
    user = labelling.Labeller(page, seed=2)
    user.work(70)
    user.settle()
    assert user.n_undone > 2
    assert labelling.journal(path) == first + user.lines
    assert user.acknowledged().items() <= labelling.final(user.lines).items()
    assert not page.locator(".amw-message").count()


def test_a_killed_kernel_loses_no_kept_label_and_a_new_one_shows_them_all(notebook, sky, labelling, tmp_path):
    path = tmp_path / "run" / "labels.jsonl"
    again = f"import amatch_widgets as am\nagain = am.Session.open({str(path.parent)!r})\nagain"
    nb = notebook([*sky, again])
    page = ready(nb)
    pid = int(nb.ask("import os; print(os.getpid())"))
    first = labelling.journal(path)
    user = labelling.Labeller(page, seed=1)
    user.work(36)
    user.settle()
    user.make_room(20)
    n_kept = len(user.lines)
    for k in range(16):
        user.label("an"[k % 2])
        if k == 8:
            os.kill(pid, signal.SIGKILL)
    page.wait_for_selector(".amw-dead")
    page.wait_for_selector(".amw-unkept")  # those pressed after the kill are shown as not kept
    kept = user.acknowledged()

    # What is on disk is the beginning of what was asked for, with all that was said to be kept.
    written = labelling.journal(path)[len(first) :]
    assert n_kept <= len(written) < len(user.lines)
    assert written == user.lines[: len(written)]
    assert kept.items() <= labelling.final(written).items()

    nb.wait_for_restart()
    nb.run(2)
    assert "Error" not in nb.output(2), nb.output(2)
    root = page.locator(".amw-root").nth(1)
    root.locator(".amw-sort").select_option("recent")
    labels = labelling.final(first + written)
    root.locator(".amw-per-page").select_option("96")
    root.locator(f".amw-tile >> nth={min(96, len(labels)) - 1}").wait_for()
    shown = root.locator(".amw-tile").evaluate_all("tiles => tiles.map(t => [t.title, t.dataset.label])")
    assert len(labels) <= 96
    assert dict(shown) == labels


def test_a_kernel_that_jupyterlab_restarts_loses_no_label_and_the_cells_bring_them_back(
    notebook, sky, labelling, tmp_path
):
    path = tmp_path / "run" / "labels.jsonl"
    nb = notebook(sky)
    page = ready(nb)
    first = labelling.journal(path)
    user = labelling.Labeller(page, seed=4)
    user.work(24)
    user.settle()
    page.evaluate("() => { window.restarted = window.jupyterapp.commands.execute('kernelmenu:restart'); }")
    page.locator(".jp-Dialog .jp-mod-warn.jp-mod-accept").click()
    page.evaluate("() => window.restarted")
    expect(page.locator(".amw-dead")).to_contain_text("The kernel was restarted or stopped.")
    expect(page.locator(".amw-dead")).to_contain_text("every label shown as kept is on disk")

    # What is said now reaches nobody, and is not shown as kept.
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("c" if tile(page, 0).get_attribute("data-label") else "a")
    assert tile(page, 0).get_attribute("data-kept") == "no"
    page.wait_for_selector(".amw-unkept")
    assert labelling.journal(path) == first + user.lines

    # The same cells again: the same session, with all that was kept.
    nb.run(0)
    assert "Error" not in nb.output(0), nb.output(0)
    nb.run(1)
    page.wait_for_selector(".amw-dead", state="detached")
    page.wait_for_selector(".amw-tile img")
    assert labelling.journal(path) == first + user.lines
    page.select_option(".amw-per-page", "96")
    page.select_option(".amw-sort", "recent")
    kept = labelling.final(first + user.lines)
    assert len(kept) <= 96
    expect(page.locator(".amw-tile")).to_have_count(len(kept))
    shown = page.eval_on_selector_all(".amw-tile", "all => all.map(t => [t.title, t.dataset.label])")
    assert dict(shown) == kept
    tile(page, 0).locator(".amw-image").click()
    page.keyboard.press("s")
    page.wait_for_selector('.amw-tile[data-index="0"][data-starred="yes"]')
    assert not page.locator(".amw-unkept").count()
