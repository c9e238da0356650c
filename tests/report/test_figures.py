"""The figures show the session's numbers, and the same session gives the same bytes."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

from amatch_widgets.demo import DemoSource
from amatch_widgets.errors import ConfigError, ImageReadError, WorkspaceError
from amatch_widgets.learn.metrics import evaluate
from amatch_widgets.report.figures import (
    discovery_figure,
    histogram_figure,
    metrics_figure,
    save_figures,
)
from amatch_widgets.report.sheet import sheet_figure
from amatch_widgets.session.history import CycleRecord


def cycle(k, n_held_out=40):
    rng = np.random.default_rng(k)
    truth = np.arange(n_held_out) % 4 == 0
    metrics = evaluate(truth, truth + rng.normal(0, 0.5, n_held_out), n_bootstrap=100)
    return CycleRecord(
        cycle=k, step=k, metrics=metrics, n_anomalies=10, n_normals=30, train_s=1.0, score_s=1.0, time=""
    )


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_metrics_are_drawn_with_their_intervals_side_by_side(make_session):
    session = make_session()
    records = [cycle(1), cycle(2)]
    for record in records:
        session.history.add_cycle(record)
    axes = metrics_figure(session).axes[0]
    assert [c.get_label() for c in axes.containers] == ["AUROC", "AUPRC"]
    for container, key, shift in zip(axes.containers, ("auroc", "auprc"), (-0.06, 0.06), strict=True):
        line, _, (bars,) = container.lines
        estimates = [getattr(record.metrics, key) for record in records]
        assert np.allclose(line.get_xdata(), [1 + shift, 2 + shift])
        assert np.allclose(line.get_ydata(), [e.value for e in estimates])
        ends = [sorted(segment[:, 1]) for segment in bars.get_segments()]
        assert np.allclose(ends, [[e.low, e.high] for e in estimates])


def test_metrics_now_are_drawn_also_where_no_cycle_has_a_value(make_session, rank):
    session = make_session(labels=None, test_share=0.5)
    session.label({i: "anomaly" if k % 2 else "normal" for k, i in enumerate(session.source.ids[:40])})
    rank(session)
    session.history.add_cycle(cycle(1, n_held_out=3))
    axes = metrics_figure(session).axes[0]
    assert [c.get_label() for c in axes.containers] == ["AUROC", "AUPRC"]
    assert axes.containers[0].lines[0].get_ydata().tolist() == [session.metrics.auroc.value]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "now"]


def test_many_cycles_are_not_all_named(make_session):
    session = make_session()
    for k in range(1, 41):
        session.history.add_cycle(cycle(k))
    names = [t.get_text() for t in metrics_figure(session).axes[0].get_xticklabels()]
    assert names[:3] == ["1", "5", "9"]
    assert names[-1] == "now"


def test_found_anomalies_are_steps_and_the_next_page_is_beside_them(make_session, look):
    session = make_session()
    look(session, "naannnnnnnnnnna")
    axes = discovery_figure(session).axes[0]
    steps, finds = axes.lines[:2]
    assert steps.get_xdata().tolist() == list(range(16))
    assert steps.get_ydata().tolist() == [0, *session.discovery.found]
    assert finds.get_xdata().tolist() == [2, 3, 15]
    assert finds.get_ydata().tolist() == [1, 2, 3]
    page = session.discovery.next_page()
    bar = axes.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 0].tolist() == [15 + 24] * 2
    assert sorted(bar[:, 1]) == [3 + page.low, 3 + page.high]


def test_after_few_looks_nothing_is_drawn_of_the_next_page(make_session, look):
    session = make_session()
    look(session, "na")
    axes = discovery_figure(session).axes[0]
    assert not axes.containers
    assert axes.get_title(loc="left").startswith("Too few looks")


def test_the_histogram_counts_all_scores_and_marks_the_labelled_ones(make_session, rank):
    session = make_session(labels=None)
    scores = rank(session, [0.01, 0.02, 0.5, 1.0, np.nan, *[0.3] * 55])
    ids = session.source.ids
    session.label({ids[3]: "anomaly", ids[0]: "normal", ids[2]: "anomaly", ids[4]: "anomaly"})
    scores = rank(session, scores)  # the label has asked for a new fit
    marks, axes = histogram_figure(session).axes
    heights = {round(bar.get_x(), 3): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert heights == {0.0: 2, 0.3: 55, 0.5: 1, 0.975: 1}
    drawn = {line.get_label(): (line.get_marker(), sorted(line.get_xdata().tolist())) for line in marks.lines}
    assert drawn["anomaly"] == ("D", [0.5, 1.0])
    assert drawn["normal"][0] == "o"
    assert drawn["normal"][1] == pytest.approx([0.01])


def test_a_fresh_session_says_in_each_figure_what_is_missing(make_session):
    session = make_session(labels=None)
    assert words(metrics_figure(session))[0].startswith("too few to say")
    assert words(discovery_figure(session)) == ["nothing was looked at yet"]
    assert words(histogram_figure(session)) == ["nothing is scored yet"]
    assert words(sheet_figure(session)) == ["nothing is scored yet"]


def test_novelty_is_a_rank_and_has_no_histogram(make_session, rank):
    session = make_session(labels=None)
    rank(session, kind="novelty")
    assert words(histogram_figure(session))[0].startswith("ordered by novelty")


def test_the_sheet_shows_the_best_with_rank_score_and_the_shape_of_the_label(make_session, rank):
    session = make_session()
    scores = rank(session)
    axes = sheet_figure(session, n=12, columns=5).axes[0]
    best = np.argsort(-scores)[:12]
    assert len(axes.images) == 12
    texts = words(axes.figure)
    assert [t for t in texts if t.isdecimal()] == [str(k) for k in range(1, 13)]
    assert [t for t in texts if t.startswith(("0.", "1."))] == [f"{scores[i]:.3f}" for i in best]
    kinds = [label.label for i in best if (label := session.labels.get(session.source.ids[i]))]
    shapes = [line.get_marker() for line in axes.lines[2:]]  # after the key
    assert shapes == [{"anomaly": "D", "normal": "o"}[kind] for kind in kinds]
    assert kinds


@pytest.mark.parametrize(("n", "columns"), [(0, 10), (5, 0)])
def test_a_sheet_of_nothing_is_refused(make_session, n, columns):
    with pytest.raises(ConfigError, match="at least 1"):
        sheet_figure(make_session(), n=n, columns=columns)


class Named(DemoSource):
    """A sky in which three images have hostile names and cannot be read."""

    def __init__(self):
        super().__init__(60, size=32, prevalence=0.2)
        self.ids = ["$\\frac{1$", "<b>星\n", "c\udcff", *self.ids[3:]]

    def read(self, index, *, min_side=None):
        if index < 3:
            raise ImageReadError(self.ids[index], "it has a hole")
        return super().read(index, min_side=min_side)


def test_images_that_cannot_be_read_are_left_out_and_named(make_session, rank, tmp_path):
    session = make_session(Named(), labels=None)
    scores = np.linspace(1, 0, 60)
    rank(session, scores)
    figure = sheet_figure(session, n=10)
    assert len(figure.axes[0].images) == 7
    assert words(figure)[0] == "The highest 10 of 60 images"
    assert words(figure)[-1] == ("Left out, as they cannot be read: $\\frac{1$, <b>\\u661f?, c\\udcff.")
    assert "none of them can be read" in words(sheet_figure(session, n=3))
    save_figures(session, tmp_path, formats="svg")
    assert b"&lt;b&gt;" in (tmp_path / "sheet.svg").read_bytes()


def test_the_same_session_gives_the_same_bytes_whatever_the_style_of_the_user(
    make_session, rank, look, tmp_path
):
    session = make_session()
    look(session, "an" * 8)
    rank(session)
    session.history.add_cycle(cycle(1))
    first = save_figures(session, tmp_path / "a")
    assert sorted(p.name for p in first) == sorted(
        f"{name}.{form}"
        for name in ("metrics", "discovery", "histogram", "sheet")
        for form in ("png", "svg", "pdf")
    )
    users = {"axes.facecolor": "red", "font.size": 30.0, "svg.fonttype": "path", "savefig.bbox": "tight"}
    with mpl.rc_context(users):
        second = save_figures(session, tmp_path / "b")
        assert {key: mpl.rcParams[key] for key in users} == users
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_text_stays_text_and_fonts_are_embedded_without_a_date(make_session, look, tmp_path):
    session = make_session()
    look(session, "an" * 8)
    save_figures(session, tmp_path, formats=["svg", "pdf"])
    svg = (tmp_path / "discovery.svg").read_text()
    assert ">images looked at</text>" in svg
    assert "<dc:date>" not in svg
    pdf = (tmp_path / "discovery.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize("formats", [["png", "gif"], [], "jpeg"])
def test_an_unknown_format_is_refused_before_anything_is_written(make_session, tmp_path, formats):
    with pytest.raises(ConfigError, match="allowed are 'png', 'svg', 'pdf'"):
        save_figures(make_session(), tmp_path / "figures", formats=formats)
    assert not (tmp_path / "figures").exists()


def test_a_folder_that_cannot_be_made_is_said(make_session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="The figure cannot be written to"):
        save_figures(make_session(labels=None), tmp_path / "file", formats=["svg"])


def test_without_matplotlib_the_message_is_the_line_to_type():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from amatch_widgets.errors import MissingExtraError\n"
        "try: import amatch_widgets.report.figures\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'amatch-widgets[figures]'" in done.stdout


def test_no_window_and_no_pyplot_come_with_the_figures():
    code = "import sys, amatch_widgets.report.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
