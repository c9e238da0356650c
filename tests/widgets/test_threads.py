"""The handlers of one dashboard, called from many threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from amatch_widgets.labels import LabelStore
from amatch_widgets.widgets import Dashboard, labelling

WAIT_S = 120
N_THREADS, N_ROUNDS = 8, 12
LABELS = ("anomaly", "normal")


@pytest.fixture
def board(session, monkeypatch):
    monkeypatch.setattr(labelling, "_PAGES_REMEMBERED", 10_000)  # no user turns hundreds of pages a second
    board = Dashboard(session)
    session.wait(WAIT_S)  # the embeddings
    board.gallery.choose(sort="random", per_page=96)
    yield board
    board.close()


def use(board, thread, serial, ids):
    """Label and tag some images of a page, and all the while turn pages, filter, look and go on."""
    gallery, detail = board.gallery, board.detail
    for k in range(N_ROUNDS):
        index = thread * N_ROUNDS + k
        label = LABELS[index % 2]
        tile = {"serial": serial, "indices": [index]}
        gallery.vue_do_label({**tile, "label": label, "token": f"{index}"})
        gallery.vue_do_annotate({**tile, "add": [f"tag {thread}"]})
        gallery.vue_do_turn({"number": (thread + k) % 3})
        gallery.vue_do_choose({"only": {"contains": str(k % 3)} if k % 2 else {}})
        gallery.vue_do_choose({"tile_size": ("small", "large")[k % 2]})
        gallery.vue_do_look({"serial": gallery.page["serial"], "index": 0, "view": f"{thread}", "turn": k})
        detail.vue_do_label({"id": ids[index], "label": label, "token": "d"})
        detail.vue_do_render({"brightness": 1 + k / 10})
        board.past.vue_do_want({"view": f"{thread}", "text": "", "by": None})
        gallery.vue_do_with_twins({"on": k % 2})
        gallery.vue_do_name({"name": f"thread {thread}"})


def test_no_label_is_lost_and_the_last_wish_holds_when_all_handlers_run_at_once(board, session):
    gallery, detail, start, answers = board.gallery, board.detail, threading.Barrier(N_THREADS), []
    serial, ids = gallery.page["serial"], gallery.image_ids
    assert len(ids) == N_THREADS * N_ROUNDS
    gallery.send = lambda content, buffers=None: answers.append(content)

    def begin(thread):
        start.wait(WAIT_S)
        use(board, thread, serial, ids)

    with ThreadPoolExecutor(N_THREADS) as threads:
        for ended in [threads.submit(begin, k) for k in range(N_THREADS)]:
            ended.result(WAIT_S)
    assert [m["text"] for m in board.messages if m["level"] == "error"] == []

    # What each thread said is kept, and is on disk.
    again = LabelStore(session.path / "labels.jsonl")
    kept = again.current()
    again.close()
    assert kept == session.labels.current()
    for k, image_id in enumerate(ids):
        assert (kept[image_id].label, kept[image_id].tags) == (LABELS[k % 2], (f"tag {k // N_ROUNDS}",))
    told = {m["args"][0] for m in answers if m["method"] == "settled" and m["args"][1]}
    assert {f"{k}" for k in range(len(ids))} <= told

    # The last value of each wish holds.
    gallery.vue_do_choose({"only": {}, "tile_size": "medium", "sort": "recent"})
    gallery.vue_do_turn({"number": 1})
    gallery.vue_do_look({"serial": gallery.page["serial"], "index": 2, "view": "last", "turn": 0})
    gallery.vue_do_name({"name": "last"})
    detail.vue_do_render({"brightness": 1.5})
    state = gallery.get_state(["only", "tile_size", "sort", "annotator"])
    assert state["only"] == {"contains": "", "tag": "", "least": 0.0, "most": 1.0}
    assert (state["tile_size"], state["sort"], state["annotator"]) == ("medium", "recent", "last")
    assert (gallery.page["number"], gallery.looking["view"]) == (1, "last")
    assert (detail.image_id, detail.rendering["brightness"]) == (gallery.image_ids[2], 1.5)
    marks = [session.labels.get(i).label or "" for i in gallery.image_ids]
    assert (gallery.labels["serial"], gallery.labels["marks"]) == (gallery.page["serial"], marks)
