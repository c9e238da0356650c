"""Labelling over a connection with a round trip of 200 ms."""

from __future__ import annotations

from tests.browser.helper import cursor, titles, wait_label

ROUND_TRIP_S = 0.2

# Times in the browser, from the key to the frame that shows what it did.
_KEY_MS = """async (index) => {
    const tile = document.querySelector(`.amw-tile[data-index="${index}"]`);
    const root = document.querySelector(".amw-gallery");
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const start = performance.now();
    root.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true, cancelable: true }));
    await new Promise((done) => Promise.resolve().then(done)); // Vue draws in a microtask
    await frame();
    const seen = tile.dataset.label === "anomaly" && tile.dataset.kept === "no";
    const seen_ms = performance.now() - start;
    while (tile.dataset.kept !== "yes") {
        await frame();
        if (performance.now() > start + 20000) throw new Error("the label was not kept within 20 s");
    }
    return [seen, seen_ms, performance.now() - start];
}"""


def test_labels_show_at_once_and_none_is_lost_over_a_slow_connection(
    notebook, sky, proxy, labelling, tmp_path
):
    nb = notebook(sky, url=proxy.url)
    page = nb.page
    nb.run(0)
    assert "Error" not in nb.output(0), nb.output(0)
    nb.run(1)
    page.wait_for_selector(".amw-tile img")
    path = tmp_path / "run" / "labels.jsonl"
    first = labelling.journal(path)
    page.evaluate(
        """() => {
            window.alarms = 0;
            const look = () => { window.alarms += document.querySelectorAll(".amw-dead").length; };
            new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
        }"""
    )

    proxy.delay_s = ROUND_TRIP_S / 2
    user = labelling.Labeller(page, seed=3)
    first_id = user.ids[0]
    is_seen, seen_ms, kept_ms = page.evaluate(_KEY_MS, 0)
    assert is_seen, "the first frame after the key was to show the label, on its way still"
    assert seen_ms < 1000 * ROUND_TRIP_S
    assert kept_ms > 1000 * ROUND_TRIP_S, "the connection was to be slow"
    page.click('.amw-tile[data-index="0"] .amw-image')
    user.work(60)
    user.settle()
    assert labelling.journal(path) == [*first, (first_id, "anomaly"), *user.lines]
    assert user.acknowledged().items() <= labelling.final(user.lines).items()
    assert page.evaluate("window.alarms") == 0
    assert not page.locator(".amw-message").count()


def test_an_image_that_was_closed_stays_closed_though_the_kernel_hears_of_it_later(notebook, sky, proxy):
    nb = notebook(sky, url=proxy.url)
    page = nb.page
    nb.run(0)
    assert "Error" not in nb.output(0), nb.output(0)
    nb.run(1)
    page.wait_for_selector(".amw-tile img")
    ids = titles(page)
    proxy.delay_s = ROUND_TRIP_S / 2
    page.click('.amw-tile[data-index="4"] .amw-image')
    page.keyboard.press("Enter")
    page.wait_for_selector(f'.amw-detail[data-image="{ids[4]}"]')
    page.evaluate(
        """() => {
            window.seen = 0;
            const look = () => { window.seen += document.querySelectorAll(".amw-detail").length; };
            window.watcher = new MutationObserver(look);
        }"""
    )
    page.keyboard.press("ArrowRight")  # to another image, which is on its way when the detail is closed
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    page.evaluate("window.watcher.observe(document.body, { childList: true, subtree: true })")
    page.keyboard.press("ArrowRight")
    assert cursor(page) == 6
    page.keyboard.press("a")
    wait_label(page, 6, "anomaly")  # the kernel has heard all of it, in this order
    assert page.evaluate("window.seen") == 0
    assert not page.locator(".amw-detail").count()
    assert cursor(page) == 7

    page.keyboard.press("Enter")
    page.wait_for_selector(f'.amw-detail[data-image="{ids[7]}"]')
    page.keyboard.press("Escape")
    page.wait_for_selector(".amw-detail", state="detached")
    page.keyboard.press("Enter")  # again, before the kernel knows that it was closed
    page.wait_for_selector(f'.amw-detail[data-image="{ids[7]}"]')
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f'.amw-detail[data-image="{ids[6]}"]')
