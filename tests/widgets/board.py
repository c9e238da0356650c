"""A gallery without a browser."""

from __future__ import annotations

import threading

from amatch_widgets.widgets.gallery import Gallery
from amatch_widgets.widgets.view import Desk

WAIT_S = 30


class Board:
    """A gallery without a browser, and a way to wait until it shows something."""

    def __init__(self, session):
        self.messages, self.sent = [], []
        self.changed = threading.Condition()
        self.desk = Desk()
        self.desk.on_message(lambda level, text: self.messages.append((level, text)))
        self.gallery = Gallery(session, self.desk)
        self.gallery.send = self.send
        self.gallery.observe(lambda _: self.notify())

    def notify(self):
        with self.changed:
            self.changed.notify_all()

    def send(self, content, buffers=None):
        self.sent.append(content)
        self.notify()

    def until(self, holds):
        with self.changed:
            assert self.changed.wait_for(holds, WAIT_S)

    def settle(self):
        """Wait until all that was asked for is shown."""
        self.until(lambda: not self.gallery.busy)
        with self.desk.lock:  # which is held until the page is there too
            return self.gallery.page

    def browse(self, *args):
        self.gallery.browse(*args)
        return self.settle()

    def choose(self, **wish):
        self.gallery.choose(**wish)
        return self.settle()

    def pointed(self):
        return [m["args"][:2] for m in self.sent if m["method"] == "look_at"][-1]

    def press(self, index, label):
        page = self.gallery.page
        self.gallery.vue_do_label(
            {"serial": page["serial"], "indices": [index], "label": label, "token": "t"}
        )
        return [m for m in self.sent if m["method"] == "settled"][-1]["args"][1]
