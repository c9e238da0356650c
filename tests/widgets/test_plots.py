from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from amatch_widgets.learn.metrics import evaluate
from amatch_widgets.learn.records import StepRecord
from amatch_widgets.session.history import CycleRecord
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.charts import HEIGHT, WIDTH
from amatch_widgets.widgets.gallery import Gallery
from amatch_widgets.widgets.graphs import loss_chart, metrics_chart, score_chart, share_chart
from amatch_widgets.widgets.plots import Plots
from amatch_widgets.widgets.view import Desk


def step(k, loss=1.0):
    return StepRecord(
        step=k,
        cycle=1,
        loss=loss,
        supervised=loss / 2,
        unsupervised=loss / 2,
        share_above=0.25,
        n_anomaly=3,
        n_normal=17,
        seconds=0.5,
    )


def cycle(k, n_held_out=40):
    rng = np.random.default_rng(k)
    truth = np.arange(n_held_out) % 4 == 0
    metrics = evaluate(truth, truth + rng.normal(0, 0.5, n_held_out), n_bootstrap=100)
    return CycleRecord(
        cycle=k, step=k, metrics=metrics, n_anomalies=10, n_normals=30, train_s=1.0, score_s=1.0, time=""
    )


def places(points):
    return [tuple(float(v) for v in pair.split(",")) for pair in points.split()]


def test_without_data_each_chart_says_so():
    assert loss_chart([])["note"] == "no training yet"
    assert share_chart([], 0.95)["note"] == "no training yet"
    assert metrics_chart([])["note"] == "no cycle has ended yet"
    assert score_chart(np.full(5, np.nan, np.float32), None, None)["note"] == "nothing is scored yet"


def test_losses_are_three_curves_of_at_most_500_points_inside_the_chart():
    chart = loss_chart([step(k, 1 + math.sin(k)) for k in range(1, 5_001)])
    assert [line["name"] for line in chart["lines"]] == ["total", "supervised", "unsupervised"]
    for line in chart["lines"]:
        points = places(line["points"])
        assert 100 < len(points) <= 500
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert chart["x_ticks"]
    assert chart["y_ticks"][0][1] == "0"


def test_a_loss_that_is_not_a_number_leaves_a_gap():
    chart = loss_chart([step(1), step(2, math.nan), step(3)])
    assert len(places(chart["lines"][0]["points"])) == 2


def test_one_step_alone_can_be_drawn():
    assert loss_chart([step(1)])["lines"]
    assert share_chart([step(1)], 0.95)["lines"]


def test_the_share_tells_the_pseudo_labels_of_each_class():
    chart = share_chart([step(1), step(2)], 0.95)
    assert chart["title"] == "Pseudo-labels above 0.95"
    assert chart["value"] == "last step 3 ◆ 17 ●"
    assert [text for _, text in chart["y_ticks"]] == ["0 %", "50 %", "100 %"]


def test_each_cycle_has_its_interval_around_its_value():
    chart = metrics_chart([cycle(1), cycle(2)])
    assert [line["name"] for line in chart["lines"]] == ["AUROC", "AUPRC"]
    assert len(chart["intervals"]) == 4
    for mark in chart["intervals"]:
        assert mark["high"] <= mark["y"] <= mark["low"]  # y runs downwards


def test_too_few_held_out_labels_are_said_instead_of_a_number():
    chart = metrics_chart([cycle(1, n_held_out=3)])
    assert chart["lines"] == []
    assert chart["note"].startswith("too few to say")


def test_score_bars_count_all_scores_and_nan_is_none():
    scores = np.array([0.0, 0.01, 0.5, 1.0, np.nan], np.float32)
    chart = score_chart(scores, "deep", 3)
    assert len(chart["bars"]) == 3
    assert all(height > 0 and width > 0 for _, _, width, height in chart["bars"])
    assert chart["value"] == "images, cycle 3"
    assert chart["y_ticks"][0][1] == "1"


def test_labelled_images_are_marked_above_the_bars_at_their_scores_and_counted():
    scores = np.linspace(0, 1, 50, dtype=np.float32)
    labelled = {"anomaly": scores[[49]], "normal": scores[[0, 0, 25]]}
    chart = score_chart(scores, "instant", None, labelled)
    anomalies, normals = chart["rows"]
    assert (anomalies["text"], normals["text"]) == ("1 anomaly", "3 normals")
    ends = {text: place for place, text in chart["x_ticks"]}
    assert anomalies["xs"] == [ends["1"]]
    assert normals["xs"][0] == ends["0"]
    assert len(normals["xs"]) == 2  # two at the same place are drawn as one
    assert normals["y"] + 4 < min(top for _, top, _, _ in chart["bars"])
    assert anomalies["y"] + 8 < normals["y"]


def test_a_million_labels_are_no_more_marks_than_the_chart_is_wide():
    scores = np.random.default_rng(0).random(1_000_000).astype(np.float32)
    rows = score_chart(scores, "deep", 1, {"anomaly": scores, "normal": scores[:0]})["rows"]
    assert len(rows[0]["xs"]) <= WIDTH
    assert (rows[0]["text"], rows[1]["text"]) == ("1,000,000 anomalies", "0 normals")


def test_the_marks_are_of_the_labels_of_now_that_have_a_score(session, ranked):
    ranked(0)
    plots = Plots(session)
    counts = session.labels.counts()
    assert [row["text"] for row in plots.charts[4]["rows"]] == [
        f"{counts['anomaly']} anomalies",
        f"{counts['normal']} normals",
    ]
    taken = next(i for i, line in session.labels.current().items() if line.label == "anomaly")
    session.label({taken: "normal"})
    plots.show_all()
    assert plots.charts[4]["rows"][0]["text"] == f"{counts['anomaly'] - 1} anomalies"
    plots.close()


def test_plots_of_a_new_session_say_what_is_missing(session):
    plots = Plots(session)
    assert [chart["key"] for chart in plots.charts] == ["discovery", "metrics", "losses", "share", "scores"]
    assert len(plots.headline) == 1
    assert plots.headline[0]["interval"].startswith("too few to say")
    session.history.add_step(step(1))
    plots.show_all()
    assert plots.charts[2]["lines"]
    plots.close()


def test_found_anomalies_rise_with_the_looks_and_the_sentence_says_what_is_next(session):
    plots = Plots(session)
    assert plots.charts[0]["note"] == "nothing was looked at yet"
    unlabelled = [i for i in session.source.ids if session.labels.get(i) is None][:16]
    for k, image_id in enumerate(unlabelled):
        session.label({image_id: "anomaly" if k % 4 == 0 else "normal"}, reason="gallery, highest")
    plots.show_all()
    chart = plots.charts[0]
    assert chart["value"] == "4 in 16 looks"
    heights = [y for _, y in places(chart["lines"][0]["points"])]
    assert heights == sorted(heights, reverse=True)  # y runs downwards
    assert len(set(heights)) == 5
    assert chart["text"].startswith("Another 24 images are likely to bring about")
    plots.close()


def look(session, n):
    unlabelled = [i for i in session.source.ids if session.labels.get(i) is None][:n]
    session.label({i: "anomaly" if k % 4 == 0 else "normal" for k, i in enumerate(unlabelled)})


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


def test_the_next_page_is_of_the_size_of_the_gallerys_but_of_no_more_than_are_left(session):
    look(session, 100)
    gallery = Gallery(session, desk := Desk())
    plots = Plots(session, desk, gallery=gallery)
    assert plots.charts[0]["text"].startswith("Another 48 images are")
    gallery.choose(per_page=24)
    until(lambda: plots.charts[0]["text"].startswith("Another 24 images are"))
    gallery.choose(per_page=96)
    until(lambda: plots.charts[0]["text"].startswith("Another 80 images are"))
    look(session, 79)
    plots.show_all()
    assert plots.charts[0]["text"].startswith("Another image is likely")
    look(session, 1)
    plots.show_all()
    assert plots.charts[0]["text"].startswith("All images are labelled")
    plots.close()
    gallery.choose(per_page=24)
    gallery.close()


def test_a_click_mixes_an_audit_into_the_gallery_from_which_what_is_left_is_estimated(session, ranked):
    ranked(0)
    gallery = Gallery(session, desk := Desk())
    plots = Plots(session, desk, gallery=gallery)
    assert plots.can_audit
    gallery.choose(only=Filter(contains="1"))
    gallery.show_images(session.source.ids[:3], "three")
    plots.vue_do_audit({})
    assert (gallery.sort, gallery.title, gallery.only["contains"]) == ("mixed", "", "")
    until(lambda: not plots.can_audit)
    drawn = dict(zip(gallery.image_ids, (t["reason"] for t in gallery.page["tiles"]), strict=True))
    assert any(reason.startswith("audit") for reason in drawn.values())
    session.label(dict.fromkeys(drawn, "normal"))
    plots.show_all()
    assert f"From {session.remaining.n_draws} audited images, no anomaly" in plots.charts[0]["text"]
    gallery.choose(only=Filter(contains="1"))  # which keeps the audit out
    until(lambda: plots.can_audit)
    plots.close()
    gallery.close()


def test_plots_alone_offer_no_audit_and_say_where_it_is(session):
    plots = Plots(session)
    said = []
    plots.desk.on_message(lambda level, text: said.append((level, text)))
    assert not plots.can_audit
    plots.vue_do_audit({})
    assert said[0][0] == "error"
    assert "Mixed, with audit" in said[0][1]
    plots.close()


@pytest.mark.parametrize(
    ("ranked_by", "said"),
    [
        ("instant", "images, your labels"),
        ("both", "images, your labels and cycle 2"),
    ],
)
def test_scores_say_what_they_are_made_of(ranked_by, said):
    assert score_chart(np.array([0.2, 0.9], np.float32), ranked_by, 2)["value"] == said


def test_novelty_is_a_rank_and_has_no_distribution():
    chart = score_chart(np.array([0.2, 0.9], np.float32), "novelty", None)
    assert chart["bars"] == []
    assert chart["note"].startswith("ordered by novelty")
