"""Figures of a session for a paper or a talk: metrics, discovery, scores, and a sheet of candidates."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ConfigError
from amatch_widgets.report._canvas import (
    ANOMALY_COLOUR,
    FORMATS,
    INK,
    MARKS,
    NORMAL_COLOUR,
    new_figure,
    render,
    say,
    styled,
    whole_numbers,
)
from amatch_widgets.report.sheet import sheet_figure
from amatch_widgets.session.export import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from amatch_widgets.learn.metrics import Estimate
    from amatch_widgets.session import Session

__all__ = ["discovery_figure", "histogram_figure", "metrics_figure", "save_figures"]

_SIZE_IN = (5.4, 3.5)
_BINS = 40
_TICKS = 12  # cycles that are named; more would overlap
_FEW = 60  # marks on a curve; more overlap, and are drawn smaller


def save_figures(session: Session, folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write all figures of a session; the same session gives the same bytes.

    Parameters
    ----------
    session : Session
    folder : path
        Made if it does not exist; files of the same names are replaced.
    formats : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        ``metrics``, ``discovery``, ``histogram`` and ``sheet`` in each format.

    Raises
    ------
    ConfigError
        If there is no such format, or none is given. Nothing is written.
    WorkspaceError
        If a file cannot be written.
    """
    wanted = [formats] if isinstance(formats, str) else list(dict.fromkeys(formats))
    unknown = [form for form in wanted if form not in FORMATS]
    if unknown or not wanted:
        raise ConfigError(f"formats is {formats!r}; allowed are {', '.join(map(repr, FORMATS))}.")
    figures = {
        "metrics": metrics_figure(session),
        "discovery": discovery_figure(session),
        "histogram": histogram_figure(session),
        "sheet": sheet_figure(session),
    }
    return [
        write_whole(Path(folder).expanduser() / f"{name}.{form}", render(figure, form), what="The figure")
        for name, figure in figures.items()
        for form in wanted
    ]


@styled()
def metrics_figure(session: Session) -> Figure:
    """Draw AUROC and AUPRC on the held-out labels, after each cycle and now, with 95 % intervals.

    Parameters
    ----------
    session : Session

    Returns
    -------
    Figure
    """
    figure = new_figure(*_SIZE_IN)
    axes = figure.add_subplot()
    cycles = session.history.cycles
    now = session.metrics
    places = [record.cycle for record in cycles]
    end = max(places, default=0) + 1
    for shift, name, key, colour, mark, line in (
        (-0.06, "AUROC", "auroc", NORMAL_COLOUR, "o", "-"),
        (0.06, "AUPRC", "auprc", ANOMALY_COLOUR, "s", "--"),
    ):
        told = [
            (c.cycle, getattr(c.metrics, key)) for c in cycles if getattr(c.metrics, key).value is not None
        ]
        _intervals(axes, shift, told, fmt=mark + line, color=colour, label=name)
        # Hollow: labels given since the last cycle count too, so that it is no further cycle.
        last = [(end, getattr(now, key))]
        _intervals(axes, shift, last, fmt=mark, color=colour, mfc="white", label=None if told else name)
    if not axes.containers:
        say(axes, textwrap.fill(repr(now.auroc), 60))
        return figure
    axes.set(
        xlabel="training cycle",
        ylabel="on the held-out labels",
        ylim=(0, 1.02),
        xlim=(min([*places, end]) - 0.5, end + 0.5),
    )
    ticked = places[:: -(-len(places) // _TICKS) or 1]
    axes.set_xticks([*ticked, end], [*map(str, ticked), "now"])
    axes.grid(visible=False, axis="x")
    axes.legend(loc="lower right", ncols=2)
    anomalies = "anomaly" if now.auroc.n_anomalies == 1 else "anomalies"
    counts = f"{now.auroc.n_anomalies:,} {anomalies} of {now.auroc.n_total:,} labels"
    axes.set_title(f"Held out now: {counts}. Bars: 95 % intervals.")
    return figure


@styled()
def discovery_figure(session: Session) -> Figure:
    """Draw how many anomalies the looks have brought, and what the next page is likely to bring.

    Parameters
    ----------
    session : Session

    Returns
    -------
    Figure
    """
    found = session.discovery
    figure = new_figure(*_SIZE_IN)
    axes = figure.add_subplot()
    if not found.n_looks:
        say(axes, "nothing was looked at yet")
        return figure
    curve = np.concatenate([[0], found.found])
    finds = np.flatnonzero(np.diff(curve)) + 1
    axes.plot(np.arange(len(curve)), curve, color=INK, lw=1.2, drawstyle="steps-post", label="found")
    axes.plot(
        finds,
        curve[finds],
        "D",
        color=ANOMALY_COLOUR,
        ms=4 if len(finds) <= _FEW else 2.2,
        mec="none",
        label="an anomaly",
    )
    page = found.next_page()
    end, most = found.n_looks, found.n_found
    if page is not None:
        end, most = found.n_looks + page.n, found.n_found + page.high
        ahead = ([found.n_looks, end], [found.n_found, found.n_found + page.middle])
        axes.plot(*ahead, ":", color=ANOMALY_COLOUR, lw=1)
        axes.errorbar(
            [end],
            [found.n_found + page.middle],
            yerr=[[page.middle - page.low], [page.high - page.middle]],
            fmt="D",
            mfc="white",
            color=ANOMALY_COLOUR,
            ms=5,
            capsize=3,
            label=f"after another {page.n} (95 %)",
        )
    axes.set(
        xlabel="images looked at",
        ylabel="anomalies found",
        xlim=(0, end * 1.04),
        ylim=(0, max(most * 1.05, 1)),
    )
    whole_numbers(axes)
    axes.legend(loc="best")
    axes.set_title(found.outlook.replace("; ", ";\n"))
    return figure


@styled()
def histogram_figure(session: Session) -> Figure:
    """Draw how the scores of all images are distributed, with marks where the labelled ones are.

    Parameters
    ----------
    session : Session

    Returns
    -------
    Figure
        The marks above, the counts on a logarithmic axis below: the few high scores are what one
        looks for, beside very many low ones.
    """
    figure = new_figure(*_SIZE_IN)
    scores, ranked_by = session.scores, session.ranked_by
    known = scores[np.isfinite(scores)]
    if ranked_by in (None, "novelty") or not known.size:
        reason = (
            "nothing is scored yet"
            if ranked_by is None
            else "ordered by novelty: scores come with the first anomaly"
        )
        say(figure.add_subplot(), reason)
        return figure
    marks, axes = figure.subplots(2, sharex=True, height_ratios=(1, 6))
    counts, edges = np.histogram(known, np.linspace(0, 1, _BINS + 1))
    axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color="#8c98a6")
    axes.set(yscale="log", ylim=(0.7, None), xlim=(0, 1), xlabel="anomaly score", ylabel="images")
    axes.grid(visible=False, axis="x")
    for place, (kind, values) in enumerate(_labelled_scores(session).items()):
        colour, mark = MARKS[kind]
        look = {"color": colour, "ms": 4.5, "mec": "none", "alpha": 0.6, "clip_on": False}
        if len(values):  # an empty line would take all the room
            marks.plot(values, np.full(len(values), 1 - place), mark, label=kind, **look)
    marks.set(ylim=(-0.6, 1.6))
    marks.set_yticks([1, 0], ["anomalies", "normals"])
    marks.tick_params(length=0, labelbottom=False)
    marks.spines[:].set_visible(False)
    marks.grid(visible=False)
    marks.set_title(f"{known.size:,} scores; marks: what was labelled")
    return figure


def _intervals(axes: Axes, shift: float, told: Sequence[tuple[int, Estimate]], **look: Any) -> None:
    """Draw the estimates that have a value; `shift` keeps two of a cycle from covering each other."""
    known = [(at + shift, e.value, e.low, e.high) for at, e in told if e.value is not None]
    if not known:
        return
    x, value, low, high = np.array(known, float).T
    axes.errorbar(x, value, yerr=[value - low, high - value], capsize=2.5, ms=5, lw=1.2, **look)


def _labelled_scores(session: Session) -> dict[str, NDArray[np.float32]]:
    """Return the scores of the images labelled anomaly, and of those labelled normal."""
    scores, ids, labels = session.scores, session.source.ids, session.labels.current()
    found: dict[str, list[float]] = {kind: [] for kind in MARKS}
    for index in session.ranking("recent"):
        line = labels.get(ids[index])  # None: taken back this moment, on another thread
        if line is not None and np.isfinite(scores[index]):
            found[str(line.label)].append(float(scores[index]))
    return {kind: np.array(values, np.float32) for kind, values in found.items()}
