"""Mixed pages and their audits: what is drawn is noted, and what it tells is counted by today's labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.labels import LabelStore
from amatch_widgets.query.audit import AuditDraw
from amatch_widgets.query.estimate import estimate
from amatch_widgets.session import Session
from amatch_widgets.session.audits import Audits
from tests.session.helper import SKY, WAIT_S, holey, labels_of

IDS = [f"{k:03d}" for k in range(200)]
SCORES = np.linspace(1, 0, 200, dtype=np.float32)


@pytest.fixture
def labels():
    return LabelStore(None)


@pytest.fixture
def seen(monkeypatch):
    """The draws that the estimate was made of, last."""
    found = []

    def spy(draws, **counts):
        found[:] = draws
        return estimate(draws, **counts)

    monkeypatch.setattr("amatch_widgets.query.estimate.estimate", spy)
    return found


def free(labels):
    return np.array([k for k, i in enumerate(IDS) if i not in labels], np.int64)


def draw(audits, labels, n):
    return [(IDS[k], chance) for k, chance in audits.draw(IDS, SCORES, free(labels), n)]


def test_each_draw_counts_what_had_been_found_before_it(tmp_path, labels, seen):
    audits = Audits(tmp_path / "audits.jsonl", labels, seed=0)
    labels.set({"000": "anomaly", "001": "normal"}, can_undo=False)
    (a, p), (b, q), (c, _) = draw(audits, labels, 3)
    labels.set({a: "anomaly", b: "normal"})  # and none for the third
    remaining, n_open = audits.remaining(196)
    assert seen == [AuditDraw(p, 198, 1, is_anomaly=True), AuditDraw(q, 197, 2, is_anomaly=False)]
    assert (remaining.n_found, remaining.n_draws, remaining.n_hits, n_open) == (2, 2, 1, 1)

    others = {i: "anomaly" for i in IDS[100:104] if i not in {a, b, c}}
    labels.set(others)
    ((d, r),) = draw(audits, labels, 1)
    labels.set({d: "normal", c: "anomaly"})
    audits.remaining(190)
    n = 2 + len(others)
    assert seen[2:] == [
        AuditDraw(seen[2].chance, 196, 2, is_anomaly=True),
        AuditDraw(r, 196 - len(others), n, is_anomaly=False),
    ]


def test_labels_that_were_changed_count_as_they_are(tmp_path, labels, seen):
    audits = Audits(tmp_path / "audits.jsonl", labels, seed=0)
    labels.set({"000": "anomaly"})
    ((a, p),) = draw(audits, labels, 1)
    labels.set({a: "anomaly"})
    labels.set({"000": "normal"})
    remaining, _ = audits.remaining(198)
    assert seen == [AuditDraw(p, 199, 0, is_anomaly=True)]
    labels.undo()
    labels.undo()  # the audit's label is taken back
    remaining, n_open = audits.remaining(199)
    assert (remaining.n_draws, n_open) == (0, 1)


def test_an_image_whose_label_was_taken_back_before_the_draw_counts_once(tmp_path, labels, seen):
    audits = Audits(tmp_path / "audits.jsonl", labels, seed=0)
    labels.set(dict.fromkeys(IDS, "anomaly"))
    labels.set(dict.fromkeys(IDS, None))
    ((a, _),) = draw(audits, labels, 1)
    labels.set({a: "anomaly"})
    audits.remaining(199)
    assert [d.n_found for d in seen] == [0]


def test_draws_are_known_after_a_restart_and_differ_from_call_to_call(tmp_path, labels):
    path = tmp_path / "audits.jsonl"
    audits = Audits(path, labels, seed=0)
    drawn = [i for i, _ in draw(audits, labels, 4)]
    labels.set(dict.fromkeys(drawn, "normal"))
    again = Audits(path, labels, seed=0)
    assert again.remaining(196) == audits.remaining(196)
    assert draw(again, labels, 4) == draw(audits, labels, 4)  # the seed goes on from the calls before
    assert repr(again) == "Audits(8 drawn)"


@pytest.mark.parametrize(
    "line",
    [
        "[",
        "{}",
        '{"version": 0, "n_free": 5, "ids": ["000"], "chances": [2.0]}',
        '{"version": 0, "n_free": 0, "ids": ["000"], "chances": [0.5]}',
        '{"version": 0, "n_free": 5, "ids": ["000"], "chances": [0.5, 0.5]}',
        '{"version": -1, "n_free": 5, "ids": ["000"], "chances": [0.5]}',
    ],
)
def test_a_damaged_line_is_left_out(tmp_path, labels, line):
    path = tmp_path / "audits.jsonl"
    path.write_text(
        line + "\n" + json.dumps({"version": 0, "n_free": 9, "ids": ["1"], "chances": [0.1]}) + "\n"
    )
    assert repr(Audits(path, labels, seed=0)) == "Audits(1 drawn)"


# ---- in a session ---------------------------------------------------------------------------


def kinds(found):
    return [c.reason.split(":")[0] for c in found]


def test_a_mixed_query_has_its_quotas_and_each_image_once(session):
    session.embed()
    session.wait(WAIT_S)
    found = session.query(24, strategy="mixed")
    assert kinds(found) == ["top"] * 15 + ["uncertain"] * 3 + ["diverse"] * 3 + ["audit"] * 3
    assert len({c.image_id for c in found}) == 24
    assert not {c.image_id for c in found} & set(labels_of(session))
    shown = [c.image_id for c in found]
    assert not {c.image_id for c in session.query(24, strategy="mixed", leave_out=shown)} & set(shown)
    with pytest.raises(ConfigError, match="0 or more"):
        session.query(-1, strategy="mixed")


def test_before_any_scores_a_mixed_query_is_an_audit(session):
    assert set(kinds(session.query(8, strategy="mixed"))) == {"audit"}


def test_what_is_left_is_estimated_from_the_audits_also_after_a_restart(session):
    session.embed()
    session.wait(WAIT_S)
    assert session.remaining.n_draws == 0
    for _ in range(2):
        page = session.query(16, strategy="mixed")
        session.label({c.image_id: SKY.truth[c.image_id] for c in page})
    left = session.remaining
    n_anomalies = sum(label == "anomaly" for label in SKY.truth.values())
    assert (left.n_draws, session.n_audits_open) == (4, 0)
    assert left.total.low <= n_anomalies <= left.total.high
    assert left.n_free == 60 - len(session.labels)
    session.close()
    with Session.open(session.path) as again:
        assert again.remaining == left


def test_the_outlook_says_what_the_next_page_brings_and_what_is_left(session):
    assert "Mixed, with audit" in session.outlook
    session.embed()
    session.wait(WAIT_S)
    page = session.query(16, strategy="mixed")
    drawn = [c.image_id for c in page if c.reason.startswith("audit")]
    session.label({c.image_id: SKY.truth[c.image_id] for c in page if c.image_id != drawn[0]})
    assert str(session.remaining) in session.outlook
    assert session.outlook.startswith("Another 24 images are likely to bring")
    assert session.outlook.endswith("1 audited image has no label yet.")


def test_free_images_are_counted_as_they_are_listed(make_session):
    source = holey([1, 2, 50])
    session = make_session(source, labels=dict(list(SKY.truth.items())[:12]))
    session.embed()
    session.wait(WAIT_S)
    board = session._board
    assert session.problems.keys() == {source.ids[i] for i in (1, 2, 50)}
    assert len(board.free()) == board.n_free == 60 - 12 - 1  # the others of the three are labelled
    assert len(board.free([source.ids[30], source.ids[1]])) == board.n_free - 1
