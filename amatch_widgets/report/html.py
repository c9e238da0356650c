"""The report: one HTML file with all that a session found and rests on, to keep or to send."""

from __future__ import annotations

import base64
import platform
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import ConfigError
from amatch_widgets.report._canvas import inline_svg
from amatch_widgets.report.figures import discovery_figure, histogram_figure, metrics_figure
from amatch_widgets.report.markup import details, page, section, table, text
from amatch_widgets.report.top import top
from amatch_widgets.session.export import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amatch_widgets.labels import Label
    from amatch_widgets.learn.metrics import Estimate, Metrics
    from amatch_widgets.report.top import Top
    from amatch_widgets.session import Session
    from amatch_widgets.session.history import CycleRecord

__all__ = ["write_report"]

_MOST_ROWS = 5000  # of a table: a browser scrolls through as many without pain
_SHORT = 20  # rows that need no folding
_MARKS = {"anomaly": "◆", "normal": "●"}
_WORDS = {kind: f"{mark} {kind}" for kind, mark in _MARKS.items()}
_TAKEN_BACK = "taken back"
_PACKAGES = ("amatch-widgets", "torch", "timm", "numpy", "scikit-learn", "pillow", "matplotlib")


def write_report(session: Session, path: str | Path, n: int = 50) -> Path:
    """Write the report of a session.

    Parameters
    ----------
    session : Session
    path : path
        A name that ends in ``.html``; replaced if it exists.
    n : int, >= 0
        How many of the highest scores are shown.

    Returns
    -------
    Path
        The file: it asks for nothing outside itself, holds no script, and has no date of its own, so
        that the same session gives the same bytes.

    Raises
    ------
    ConfigError
        If the name does not end in ``.html`` or `n` is negative.
    WorkspaceError
        If it cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in {".html", ".htm"}:  # nobody's labels or images are written over
        raise ConfigError(f"The report is an HTML file; found the name {str(path)!r}. Let it end in '.html'.")
    shown, unreadable = top(session, n)
    lines = session.labels.history()
    body = "".join(
        (
            _head(session, lines),
            _figures(session),
            _sheet(session, shown, n_left_out=len(unreadable)),
            _metrics(session.metrics, session.history.cycles),
            _labels(lines),
            _problems(session, unreadable),
            _basis(session),
        )
    )
    content = page(f"Report: {session.source.name}", body).encode()
    return write_whole(path, content, what="The report")


def _head(session: Session, lines: Sequence[Label]) -> str:
    found, metrics, counts = session.discovery, session.metrics, session.own_labels.counts()
    state = f"Session {session.path.name}"
    if lines:
        state += f", after the label of {_when(lines[-1].time)} UTC"
    facts = [
        _fact("images", f"{len(session.source):,}"),
        _fact("labelled", f"{counts['anomaly']:,} ◆ {counts['normal']:,} ●", "anomaly ◆, normal ●"),
        _fact(
            "found by looking",
            f"{found.n_found:,} in {found.n_looks:,}",
            f"beside {found.n_given_anomalies:,} ◆ known before",
        ),
        _measured("AUROC", metrics.auroc),
        _measured("AUPRC", metrics.auprc),
    ]
    note = session.ranking_note or "Nothing is ranked yet."
    return (
        f'<header>\n<h1>{text(session.source.name)}</h1>\n<p class="dim">{text(state)}</p>\n</header>\n'
        f'<dl class="facts">\n{"".join(facts)}</dl>\n<p>{text(note)}</p>\n'
        f"<p>{text(session.outlook)}</p>\n"
    )


def _fact(name: str, value: str, small: str = "", look: str = "") -> str:
    return (
        f'<div class="fact"><dt>{text(name)}</dt><dd><span class="{look}">{text(value)}</span>'
        f"<small>{text(small)}</small></dd></div>\n"
    )


def _measured(name: str, estimate: Estimate) -> str:
    if estimate.value is None:
        return _fact(name, estimate.reason, look="words")
    counts = f"{estimate.n_anomalies:,} of {estimate.n_total:,} held-out labels"
    return _fact(name, f"{estimate.value:.3f}", f"[{estimate.low:.3f}, {estimate.high:.3f}], ◆ {counts}")


def _figures(session: Session) -> str:
    drawn = {
        "Anomalies found": ("discovery", discovery_figure(session)),
        "Quality of the ranking": ("metrics", metrics_figure(session)),
        "Scores of all images": ("histogram", histogram_figure(session)),
    }
    figures = "".join(
        f"<figure><figcaption>{text(title)}</figcaption>\n{inline_svg(figure, name, title)}</figure>\n"
        for title, (name, figure) in drawn.items()
    )
    return section("Figures", f'<div class="figures">\n{figures}</div>\n')


def _sheet(session: Session, shown: Sequence[Top], *, n_left_out: int) -> str:
    n = len(shown) + n_left_out
    if not n:
        return section("Candidates", "<p>Nothing is scored yet, or nothing was asked for.</p>\n")
    tiles = "".join(map(_tile, shown))
    said = f"The highest {n:,} of {len(session.source):,} images, with rank, score and label."
    if n_left_out:
        said += f" {_many(n_left_out, 'image')} cannot be read: see the problems."
    return section("Candidates", f'<p class="dim">{text(said)}</p>\n<div class="sheet">\n{tiles}</div>\n')


def _tile(item: Top) -> str:
    label = item.label
    kind = "" if label is None else str(label.label)
    words = "" if label is None else "; ".join((*label.tags, *filter(None, [label.note])))
    picture = base64.b64encode(item.jpeg).decode()
    mark = f'<span class="{text(kind)}" title="{text(kind)}">{_MARKS[kind]}</span>' if kind else ""
    return (
        f'<figure class="tile"><img src="data:image/jpeg;base64,{picture}" alt="{text(item.image_id)}">'
        f'<figcaption><span class="row"><b>{item.rank}</b>{mark}<span>{item.score:.3f}</span></span>'
        f'<span class="id">{text(item.image_id)}</span>'
        + (f'<span class="words" title="{text(words)}">{text(words)}</span>' if words else "")
        + "</figcaption></figure>\n"
    )


def _metrics(now: Metrics, cycles: Sequence[CycleRecord]) -> str:
    names = {"AUROC": now.auroc, "AUPRC": now.auprc, f"precision in the top {now.k}": now.precision_at_k}
    said = (
        "Measured on labels that were held out from the training, with 95 % bootstrap intervals. They speak "
        "of the images that were labelled, which the ranking chose, not of a random sample."
    )
    rows = [[name, repr(estimate)] for name, estimate in names.items()]
    parts = [f'<p class="dim">{text(said)}</p>\n', table(["now", "value [interval], counts"], rows)]
    if cycles:
        head = ["cycle", "step", "ended (UTC)", "AUROC", "AUPRC", "weight", "why"]
        of_cycles = [
            (k.cycle, k.step, _when(k.time), k.metrics.auroc, k.metrics.auprc, k.deep_weight, k.verdict)
            for k in cycles
        ]
        folded = table(head, of_cycles, numbers=["cycle", "step", "weight"], whole=["ended (UTC)"])
        parts.append(
            details(f"{_many(len(cycles), 'training cycle')}", folded, is_open=len(cycles) <= _SHORT)
        )
    return section("Metrics", *parts)


def _labels(lines: Sequence[Label]) -> str:
    if not lines:
        return section("Labels", "<p>No image was labelled yet.</p>\n")
    said = _words(lines)
    people: dict[str, list[Label]] = defaultdict(list)
    counts: Counter[tuple[str, str]] = Counter()
    for line, words in zip(lines, said, strict=True):
        people[line.by].append(line)
        counts[line.by, words] += 1
    by_whom = [
        [
            name or "(no name)",
            *(counts[name, words] for words in (*_WORDS.values(), _TAKEN_BACK)),
            _when(theirs[0].time),
            _when(theirs[-1].time),
        ]
        for name, theirs in people.items()
    ]
    head = ["by", "anomaly", "normal", "taken back", "first (UTC)", "last (UTC)"]
    kept = lines[-_MOST_ROWS:]
    rows = [
        [
            _when(line.time),
            line.image_id,
            words,
            "★" if line.star else "",
            line.by,
            "; ".join(line.tags),
            line.note,
            None if line.score is None else f"{line.score:.3f}",
            line.reason,
            line.split,
        ]
        for line, words in zip(kept, said[-_MOST_ROWS:], strict=True)
    ]
    all_head = [
        "time (UTC)",
        "image",
        "label",
        "star",
        "by",
        "tags",
        "note",
        "score then",
        "why it was shown",
        "split",
    ]
    summary = f"All {_many(len(lines), 'change')}, oldest first"
    if len(kept) < len(lines):
        summary = f"The last {len(kept):,} of {len(lines):,} changes; all of them are in labels.jsonl"
    journal = table(all_head, rows, numbers=["score then"], whole=["time (UTC)", "label", "split"])
    return section(
        "Labels",
        table(head, by_whom, numbers=head[1:4], whole=head[4:]),
        details(summary, journal, is_open=len(rows) <= _SHORT),
    )


def _words(lines: Sequence[Label]) -> list[str]:
    """Say which label each line leaves: one that was starred and never labelled had none to take back."""
    had: dict[str, str | None] = {}
    words = []
    for line in lines:
        nothing = _TAKEN_BACK if had.get(line.image_id) else ""
        words.append(_WORDS[line.label] if line.label else nothing)
        had[line.image_id] = line.label
    return words


def _problems(session: Session, unreadable: Mapping[str, str]) -> str:
    problems = session.problems | dict(unreadable)
    parts = [f"<p>{text(notice)}</p>\n" for notice in session.notices]
    if problems:
        rows = [[image_id, reason] for image_id, reason in problems.items()][:_MOST_ROWS]
        more = f"; the first {len(rows):,}" if len(rows) < len(problems) else ""
        summary = f"{_many(len(problems), 'image')} could not be read{more}"
        parts.append(details(summary, table(["image", "reason"], rows), is_open=len(rows) <= _SHORT))
    return section("Problems", *(parts or ["<p>None: no image was met that could not be read.</p>\n"]))


def _basis(session: Session) -> str:
    source = session.source
    facts: list[list[object]] = [
        ["source", source.name],
        ["fingerprint", source.fingerprint()],
        ["images", f"{len(source):,}"],
        ["channels", source.channels],
        ["seen by the model at", f"{session.image.size} px"],
        ["seen by the model as", session.image.summary or "the bands as they are, linear"],
        ["seed", session.config.seed],
        ["training steps", session.step],
        ["training cycles", session.cycle],
        ["Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"],
    ]
    facts += [[name, _version(name)] for name in _PACKAGES]
    return section(
        "What it rests on",
        '<div class="columns">\n',
        table(["what", "value"], facts),
        table(["training option", "value"], _options(session.config.to_dict())),
        table(["image option", "value"], _options(session.image.to_dict())),
        "</div>\n",
    )


def _options(options: Mapping[str, Any]) -> list[list[object]]:
    return [[name, "None" if value is None else value] for name, value in options.items()]


def _when(time: str) -> str:
    """Shorten an ISO time in UTC to the second."""
    return time[:19].replace("T", " ")


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
