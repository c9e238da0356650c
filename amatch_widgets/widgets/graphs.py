"""The live charts, as numbers and short texts for one constant template to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.widgets.charts import Axis, curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.learn.records import StepRecord
    from amatch_widgets.query.discovery import Discovery
    from amatch_widgets.session.history import CycleRecord

__all__ = ["discovery_chart", "loss_chart", "metrics_chart", "score_chart", "share_chart"]

_BINS = 40
_MADE_BY = {
    "instant": "your labels",
    "deep": "{model}",
    "both": "your labels and {model}",
}
# Where the marks of the labelled images lie, and what is left to them above the bars, in the chart's units.
_ROWS = {"anomaly": ("anomaly", "anomalies", 11.0), "normal": ("normal", "normals", 22.0)}
_ROOM = 22


def discovery_chart(found: Discovery, outlook: str) -> dict[str, Any]:
    """Draw how many anomalies the looks have brought.

    Parameters
    ----------
    found : Discovery
        From the journal of labels.
    outlook : str
        What can be said of the next page and of what is left.

    Returns
    -------
    dict
        What the template draws.
    """
    chart = _empty("discovery", "Anomalies found", "images looked at")
    if not found.n_looks:
        return chart | {"note": "nothing was looked at yet"}
    xs = list(range(found.n_looks + 1))
    ys = [0, *found.found.tolist()]
    x, y = Axis.x(0, max(found.n_looks, 4)), Axis.y(0, max(found.n_found, 4) * 1.05)
    chart["lines"] = [{"look": "a0", "name": "", "points": curve(x, y, xs, ys)}]
    chart["value"] = f"{found.n_found:,} in {found.n_looks:,} looks"
    return chart | {
        "text": outlook,
        "x_ticks": x.ticks(5, whole=True),
        "y_ticks": y.ticks(3, whole=True),
    }


def loss_chart(steps: Sequence[StepRecord]) -> dict[str, Any]:
    """Draw the losses of each step.

    Parameters
    ----------
    steps : sequence of StepRecord
        In order.

    Returns
    -------
    dict
        What the template draws.
    """
    chart = _empty("losses", "Loss", "step")
    if not steps:
        return chart | {"note": "no training yet"}
    xs = [float(s.step) for s in steps]
    series = {
        "total": [s.loss for s in steps],
        "supervised": [s.supervised for s in steps],
        "unsupervised": [s.unsupervised for s in steps],
    }
    finite = [v for values in series.values() for v in values if np.isfinite(v)]
    x, y = Axis.x(xs[0], xs[-1]), Axis.y(0, max(finite, default=1.0) * 1.05)
    chart["lines"] = [
        {"look": f"l{k}", "name": name, "points": curve(x, y, xs, values)}
        for k, (name, values) in enumerate(series.items())
    ]
    return chart | {"x_ticks": x.ticks(5, whole=True), "y_ticks": y.ticks(3)}


def share_chart(steps: Sequence[StepRecord], threshold: float) -> dict[str, Any]:
    """Draw which share of the unlabelled images gets a pseudo-label.

    Parameters
    ----------
    steps : sequence of StepRecord
        In order.
    threshold : float
        Confidence from which a prediction serves as a pseudo-label, 0 to 1.

    Returns
    -------
    dict
        What the template draws.
    """
    chart = _empty("share", f"Pseudo-labels above {threshold:g}", "step")
    if not steps:
        return chart | {"note": "no training yet"}
    xs = [float(s.step) for s in steps]
    x, y = Axis.x(xs[0], xs[-1]), Axis.y(0, 1)
    chart["lines"] = [
        {
            "look": "l0",
            "name": "",
            "points": curve(x, y, xs, [s.share_above for s in steps]),
        }
    ]
    last = steps[-1]
    chart["value"] = f"last step {last.n_anomaly} ◆ {last.n_normal} ●"
    return chart | {"x_ticks": x.ticks(5, whole=True), "y_ticks": y.ticks(2, percent=True)}


def metrics_chart(cycles: Sequence[CycleRecord]) -> dict[str, Any]:
    """Draw AUROC and AUPRC of each cycle with their 95 % intervals.

    Parameters
    ----------
    cycles : sequence of CycleRecord
        In order.

    Returns
    -------
    dict
        What the template draws; only cycles with enough held-out labels have points.
    """
    chart = _empty("metrics", "Held-out labels, 95 % intervals", "cycle")
    if not cycles:
        return chart | {"note": "no cycle has ended yet"}
    x, y = Axis.x(0.5, max(cycles[-1].cycle, 2) + 0.5), Axis.y(0, 1)
    for k, (name, pick) in enumerate((("AUROC", "auroc"), ("AUPRC", "auprc"))):
        told = [(c.cycle, getattr(c.metrics, pick)) for c in cycles]
        told = [(cycle, e) for cycle, e in told if e.value is not None]
        if not told:
            continue
        # Side by side, so that the two intervals of a cycle do not cover each other.
        xs = [cycle + (k - 0.5) * 0.06 for cycle, _ in told]
        points = curve(x, y, xs, [e.value for _, e in told])
        chart["lines"].append({"look": f"m{k}", "name": name, "points": points})
        chart["intervals"] += [
            {"look": f"m{k}", "x": x(at), "y": y(e.value), "low": y(e.low), "high": y(e.high)}
            for at, (_, e) in zip(xs, told, strict=True)
        ]
    if not chart["lines"]:
        return chart | {"note": repr(cycles[-1].metrics.auroc)}
    return chart | {"x_ticks": x.ticks(6, whole=True), "y_ticks": y.ticks(4)}


def score_chart(
    scores: NDArray[np.float32],
    ranked_by: str | None,
    cycle: int | None,
    labelled: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, Any]:
    """Draw how the scores are distributed, and above them where the labelled images are.

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
        Between 0 and 1; NaN where there is none.
    ranked_by : str or None
        What gave them: "novelty", "instant", "deep" or "both"; None when there are none.
    cycle : int or None
        Of the trained model that takes part in them; 0 is of one trained elsewhere.
    labelled : mapping of str to ndarray of float32, optional
        Scores of the images labelled "anomaly", and of those labelled "normal".

    Returns
    -------
    dict
        What the template draws. The counts are on a logarithmic axis: the few high scores are
        what one looks for, beside very many low ones.
    """
    chart = _empty("scores", "Scores of all images", "anomaly score")
    known = scores[np.isfinite(scores)]
    if ranked_by is None or not known.size:
        return chart | {"note": "nothing is scored yet"}
    if ranked_by == "novelty":  # ranks: as many of each, which says nothing
        return chart | {"note": "ordered by novelty: scores come with the first anomaly"}
    counts, edges = np.histogram(known, bins=_BINS, range=(0.0, 1.0))
    top = int(np.ceil(np.log10(max(counts.max(), 10))))
    # Half a decade below one image, so that a bin of one is seen.
    x, y = Axis.x(0, 1), Axis.y(-0.5, top, room=_ROOM)
    chart["rows"] = [_row(kind, values, x) for kind, values in (labelled or {}).items()]
    floor = y(-0.5)
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            height = y(float(np.log10(count)))
            chart["bars"].append(
                [x(left), height, round(x(right) - x(left) - 0.8, 1), round(floor - height, 1)]
            )
    step = 1 if top <= 4 else 2  # noqa: PLR2004 (more decades than that have no room for a text each)
    chart["y_ticks"] = [[y(d), f"{10**d:,}" if d < 4 else f"1e{d}"] for d in range(0, top + 1, step)]  # noqa: PLR2004 (1,000 still fits)
    model = f"cycle {cycle}" if cycle else "imported scores"
    chart["value"] = f"images, {_MADE_BY[ranked_by].format(model=model)}"
    return chart | {"x_ticks": x.ticks(5)}


def _empty(key: str, title: str, x_label: str) -> dict[str, Any]:
    keys = ("lines", "intervals", "bars", "rows", "x_ticks", "y_ticks")
    lists: dict[str, Any] = {k: [] for k in keys}
    return {"key": key, "title": title, "x_label": x_label, "value": "", "note": "", "text": "", **lists}


def _row(kind: str, values: NDArray[np.float32], x: Axis) -> dict[str, Any]:
    """Lay a mark at each score of a class; of those at the same place, one."""
    one, many, y = _ROWS[kind]
    n = len(values)
    places = np.unique(np.rint(np.interp(values, (x.low, x.high), (x.start, x.end))))
    return {"kind": kind, "y": y, "xs": places.tolist(), "text": f"{n:,} {one if n == 1 else many}"}
