"""A scripted user who labels page after page by keys, and knows what the journal must hold afterwards."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = {"a": "anomaly", "n": "normal", "c": None}
_RANGE = 5  # images at most

Line = tuple[str, str | None]


def journal(path: Path) -> list[Line]:
    """Read the image and the label of each line of a session's journal."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["id"], record["label"]) for record in records]


def final(lines: list[Line]) -> dict[str, str]:
    """Give the labels that hold after these lines."""
    last = dict(lines)
    return {image_id: label for image_id, label in last.items() if label is not None}


class Labeller:
    """Press keys in the gallery of a dashboard; nothing is waited for but pages and the cursor's jumps.

    Parameters
    ----------
    page : playwright Page
        With a dashboard on screen.
    seed : int
        Of the mixture of keys.
    board : int
        Which of the dashboards on the page.

    Attributes
    ----------
    lines : list of (str, str or None)
        What was asked for: the image and the label of each line that the journal gets, in order.
    n_undone : int
        How many actions were taken back.
    """

    def __init__(self, page: Any, *, seed: int = 0, board: int = 0) -> None:
        self.page = page
        self.lines: list[Line] = []
        self.n_undone = 0
        self._root = page.locator(".amw-root").nth(board)
        self._random = random.Random(seed)
        self._at = 0
        self._undoable: list[list[Line]] = []  # of this page: what each action was before it
        self._root.locator(".amw-image").first.click()
        self._take_page()

    def work(self, n: int) -> None:
        """Label until the journal is to have got `n` lines more, or a few more than that."""
        end = len(self.lines) + n
        while len(self.lines) < end:
            if self._at >= len(self.ids):
                self.turn()
            kind = self._random.random()
            if kind < 0.08 and self._undoable:
                self.undo()
            elif kind < 0.14 and self._at:
                self.page.keyboard.press("ArrowLeft")
                self._at -= 1
                self.label("c")
            elif kind < 0.24:
                self.label(self._random.choice("aannc"), self._random.randint(2, _RANGE))
            else:
                self.label(self._random.choice("an"))

    def label(self, key: str, n: int = 1) -> None:
        """Label the image of the cursor, or a range of up to `n` that begins there."""
        images = self.ids[self._at : self._at + n]
        for _ in images[1:]:
            self.page.keyboard.press("Shift+ArrowRight")
        self.page.keyboard.press(key)
        held = final(self.lines)
        self._undoable.append([(image_id, held.get(image_id)) for image_id in images])
        self.lines += [(image_id, _KEYS[key]) for image_id in images]
        self._at += len(images)

    def undo(self) -> None:
        """Take the last action of this page back; the cursor goes there."""
        before = self._undoable.pop()
        self.page.keyboard.press("z")
        self.lines += before
        self.n_undone += 1
        self._at = self.ids.index(before[0][0])
        self._root.locator(f'.amw-cursor[data-index="{self._at}"]').wait_for()

    def turn(self) -> None:
        """Turn the page without a look at whether the labels are kept yet."""
        serial = self._serial()
        self.page.keyboard.press("PageDown")
        self._root.locator(f'.amw-gallery:not([data-serial="{serial}"])').wait_for()
        self._take_page()

    def make_room(self, n: int) -> None:
        """Turn the page unless it has `n` tiles more."""
        if len(self.ids) - self._at < n:
            self.turn()

    def settle(self) -> None:
        """Wait until all labels of this page, and so those before it, are said to be kept."""
        self._root.locator('.amw-tile[data-kept="no"]').first.wait_for(state="detached")

    def acknowledged(self) -> dict[str, str]:
        """Give the labels of this page that are shown as kept."""
        shown = self._root.locator('.amw-tile[data-kept="yes"]:not([data-label=""])')
        return dict(shown.evaluate_all("tiles => tiles.map(t => [t.title, t.dataset.label])"))

    def _take_page(self) -> None:
        tiles = self._root.locator(".amw-tile")
        self.ids: list[str] = tiles.evaluate_all("tiles => tiles.map(t => t.title)")
        self._at, self._undoable = 0, []

    def _serial(self) -> str:
        return str(self._root.locator(".amw-gallery").get_attribute("data-serial"))
