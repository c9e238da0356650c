"""Whether the dashboard keeps every label, and its memory, over hours: parts of ui.py."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from report import lab_driver
from stopwatch import KEY, RUN_CELL, TURN

_TILES = 48
_ROUND_TRIP_S = 0.2
# A network so small that it is the dashboard that is measured.
LIGHT = ', train=am.TrainConfig(backbone="test_resnet", weights="random", embed_px=32, device="cpu")'


def journal(desk: Any, n: int) -> dict[str, Any]:
    """Let the scripted user label, and compare what was asked for with the journal."""
    labelling = lab_driver("labeller")
    notebook = desk.open("journal", train=LIGHT)
    notebook.page.evaluate(RUN_CELL, _TILES)
    first = labelling.journal(desk.run("journal") / "labels.jsonl")
    start = time.monotonic()
    user = labelling.Labeller(notebook.page)
    user.work(n)
    user.settle()
    took = time.monotonic() - start
    written = labelling.journal(desk.run("journal") / "labels.jsonl")[len(first) :]
    notebook.page.close()
    return {"journal": {"seconds": round(took, 1), "undone": user.n_undone, **_compared(user.lines, written)}}


def killed(desk: Any, n: int) -> dict[str, Any]:
    """Kill the kernel in the middle of it, and open the session again in a new one."""
    labelling = lab_driver("labeller")
    path = desk.run("killed") / "labels.jsonl"
    notebook = desk.open("killed", train=LIGHT)
    page = notebook.page
    page.evaluate(RUN_CELL, _TILES)
    pid = int(notebook.ask("import os; print(os.getpid())"))
    first = labelling.journal(path)
    user = labelling.Labeller(page, seed=1)
    user.work(n)
    user.settle()
    n_kept = len(user.lines)
    user.make_room(30)
    for k in range(24):
        user.label("an"[k % 2])
        if k == 12:
            os.kill(pid, signal.SIGKILL)
    page.wait_for_selector(".amw-dead")
    kept = user.acknowledged()
    written = labelling.journal(path)[len(first) :]
    labels = labelling.final(first + written)
    lost = n_kept - min(n_kept, len(written)) + sum(labels.get(i) != label for i, label in kept.items())

    notebook.wait_for_restart()
    notebook.run(2)
    board = page.locator(".amw-root").nth(1)
    board.locator(".amw-sort").select_option("recent")
    board.locator(".amw-tile:not([data-label=''])").first.wait_for()
    again: dict[str, str] = {}
    gallery = board.locator(".amw-gallery")
    while True:
        shown = board.locator(".amw-tile").evaluate_all("all => all.map(t => [t.title, t.dataset.label])")
        again |= dict(shown)
        if board.locator(".amw-next").is_disabled():
            break
        serial = gallery.get_attribute("data-serial")
        board.locator(".amw-next").click()
        board.locator(f'.amw-gallery:not([data-serial="{serial}"])').wait_for()
    page.close()
    return {
        "killed": {
            "kept_and_lost": lost,
            "shown_again": again == labels,
            "on_their_way": len(user.lines) - len(written),
            **_compared(user.lines[: len(written)], written),
        }
    }


def memory(desk: Any, turns: int) -> dict[str, Any]:
    """Turn pages and label; give what the kernel and the page hold, in MB, five times and at the start.

    The heap is JavaScript's after a collection; the tab is the resident size of the browser's process,
    images included, which Chromium frees when it likes to.
    """
    notebook = desk.open("memory", train=LIGHT)
    page = notebook.page
    page.evaluate(RUN_CELL, _TILES)
    notebook.ask("session.wait()")  # for the embeddings
    pid = int(notebook.ask("import os; print(os.getpid())"))
    browser = page.context.new_cdp_session(page)
    browser.send("Performance.enable")
    processes = page.context.browser.new_browser_cdp_session()
    kernel, heap, tab, every = [], [], [], max(1, turns // 5)
    button = ".amw-next"
    place = "document.querySelector('.amw-page-number').textContent.replaceAll(',', '')"
    for k in range(turns + 1):
        if k % every == 0:
            browser.send("HeapProfiler.collectGarbage")
            metrics = {m["name"]: m["value"] for m in browser.send("Performance.getMetrics")["metrics"]}
            heap.append(round(metrics["JSHeapUsedSize"] / 2**20, 1))
            kernel.append(_resident_mb(pid))
            tab.append(_tab_mb(processes))
        for index, key, label in ((3, "n", "normal"), (5, "a", "anomaly")):
            page.evaluate(KEY, [index, key, label])
        # The last page but one is full; from there it goes back, and on again.
        number, last = map(int, page.evaluate(place).split("/"))
        button = ".amw-previous" if number >= last - 1 else ".amw-next" if number == 1 else button
        page.evaluate(TURN, [_TILES, button])
    # What is a cache is given back when memory is short; a leak is not.
    browser.send("Memory.simulatePressureNotification", {"level": "critical"})
    browser.send("HeapProfiler.collectGarbage")
    page.wait_for_timeout(3000)
    short = _tab_mb(processes)
    page.close()
    return {
        "memory": {
            "kernel_mb": kernel,
            "heap_mb": heap,
            "tab_mb": tab,
            "tab_when_short_mb": short,
            "every": every,
            "turns": turns,
        }
    }


def slow(desk: Any, repeats: int) -> dict[str, Any]:
    """Label and turn pages over a slow connection."""
    proxy, labelling = lab_driver("proxy").SlowProxy(desk.lab.port), lab_driver("labeller")
    try:
        notebook = desk.open("slow", train=LIGHT, url=proxy.url)
        page = notebook.page
        page.evaluate(RUN_CELL, _TILES)
        notebook.ask("session.wait()")
        page.evaluate(
            "() => { window.alarms = 0; setInterval(() => {"
            " window.alarms += document.querySelectorAll('.amw-dead').length }, 100) }"
        )
        proxy.delay_s = _ROUND_TRIP_S / 2
        keys = [
            page.evaluate(KEY, [k % _TILES, "an"[k % 2], ["anomaly", "normal"][k % 2]])
            for k in range(repeats)
        ]
        turns = [page.evaluate(TURN, [_TILES, ".amw-next"]) for _ in range(repeats)]
        path = desk.run("slow") / "labels.jsonl"
        first = labelling.journal(path)
        user = labelling.Labeller(page)
        user.work(10 * repeats)
        user.settle()
        alarms = page.evaluate("window.alarms")
        page.close()
    finally:
        proxy.close()
    return {
        "slow": {
            "round_trip_ms": 1000 * _ROUND_TRIP_S,
            "key_ms": round(statistics.median(seen for seen, _ in keys), 1),
            "key_kept_ms": round(statistics.median(kept for _, kept in keys), 1),
            "page_ms": round(statistics.median(turns), 1),
            "false_alarms": alarms,
            **_compared(user.lines, labelling.journal(path)[len(first) :]),
        }
    }


def _tab_mb(processes: Any) -> float:
    found = processes.send("SystemInfo.getProcessInfo")["processInfo"]
    return max(_resident_mb(process["id"]) for process in found if process["type"] == "renderer")


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(float(status.split("VmRSS:")[1].split()[0]) / 2**10, 1)


def _compared(asked: list[Any], written: list[Any]) -> dict[str, Any]:
    lost, more = Counter(asked) - Counter(written), Counter(written) - Counter(asked)
    return {
        "lines": len(written),
        "lost": sum(lost.values()),
        "doubled": sum(more.values()),
        "in_order": asked == written,
    }
