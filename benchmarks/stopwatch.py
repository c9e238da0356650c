"""Stopwatches that run in the browser, so that the driver's own delay is in none of their times.

A state counts as on screen in the first frame after it holds.
"""

from __future__ import annotations

_WAIT = """
const soon = () => new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
});
const frame = () => new Promise((done) => requestAnimationFrame(done));
const until = async (holds) => {
    const end = performance.now() + 30000;
    while (!holds()) {
        if (performance.now() > end) throw new Error("the state did not come within 30 s");
        await soon();
    }
};
const tiles = () => [...document.querySelectorAll(".amw-tile")];
const serial = () => document.querySelector(".amw-gallery").dataset.serial;
const shown = (n) => {
    const images = [...document.querySelectorAll(".amw-tile img")];
    return images.length === n && images.every((image) => image.complete && image.naturalWidth > 0);
};
"""

# n -> s: from running the second cell to n images on screen.
RUN_CELL = (
    "async (n) => {"
    + _WAIT
    + """
    const panel = window.jupyterapp.shell.currentWidget;
    panel.content.activeCellIndex = 1;
    const start = performance.now();
    window.jupyterapp.commands.execute("notebook:run-cell");
    await until(() => shown(n));
    await frame();
    return (performance.now() - start) / 1000;
}"""
)

# [n, button] -> ms: from the click on it to n images of another page on screen.
TURN = (
    "async ([n, button]) => {"
    + _WAIT
    + """
    const before = serial();
    const start = performance.now();
    document.querySelector(button).click();
    await until(() => serial() !== before && shown(n));
    await frame();
    return performance.now() - start;
}"""
)

# [index, key, label] -> [ms, ms]: from the key to the tile's new state, and to the word that it is on disk.
KEY = (
    "async ([index, key, label]) => {"
    + _WAIT
    + """
    const root = document.querySelector(".amw-gallery");
    root.focus();
    tiles()[index].click();
    await frame();
    const start = performance.now();
    root.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    await until(() => tiles()[index].dataset.label === label);
    await frame();
    const seen = performance.now() - start;
    await until(() => tiles()[index].dataset.kept === "yes");
    await frame();
    return [seen, performance.now() - start];
}"""
)

# [field, value] -> ms: from the change of a select or an input to the first tile of the new list.
CHANGE = (
    "async ([field, value]) => {"
    + _WAIT
    + """
    const before = serial();
    const element = document.querySelector(field);
    const start = performance.now();
    element.value = value;
    element.dispatchEvent(new Event("input", { bubbles: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
    await until(() => serial() !== before && tiles().length);
    await frame();
    return performance.now() - start;
}"""
)
