"""The border to matplotlib: a style of our own, figures without pyplot, files that are the same each time.

matplotlib is an extra, and this module the only one that imports it at once.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
from typing import TYPE_CHECKING, Any, Literal

from amatch_widgets.errors import MissingExtraError
from amatch_widgets.labels import ANOMALY, NORMAL

try:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise MissingExtraError(
        "Figures and reports need matplotlib. Type: pip install 'amatch-widgets[figures]', then restart the "
        f"kernel. ({error})"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

__all__ = [
    "ANOMALY_COLOUR",
    "DIM",
    "FORMATS",
    "GRID",
    "INK",
    "MARKS",
    "NORMAL_COLOUR",
    "inline_svg",
    "new_figure",
    "render",
    "say",
    "styled",
    "whole_numbers",
]

FORMATS = ("png", "svg", "pdf")
# The dashboard's pair (dashboard.vue): red-green blindness keeps it apart; the shapes differ too.
ANOMALY_COLOUR, NORMAL_COLOUR = "#e89a0c", "#3f83d1"
MARKS = {ANOMALY: (ANOMALY_COLOUR, "D"), NORMAL: (NORMAL_COLOUR, "o")}  # colour and shape
INK, DIM, GRID = "#1b2430", "#5c6773", "#dfe3e8"
_OF_THE_PAGE = {INK: "currentColor", DIM: "var(--dim)", GRID: "var(--line)", "#ffffff": "var(--ground)"}

_DPI = 200  # of PNG
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": DIM,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "figure.constrained_layout.h_pad": 0.08,  # inches
    "figure.constrained_layout.w_pad": 0.08,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters on each machine
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse type 3
    "savefig.dpi": _DPI,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "amatch",  # else the ids are drawn at random
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# What else decides how a figure looks; a user's own style must not change the bytes.
_LOOKS = re.compile(
    r"(agg|axes|errorbar|font|grid|image|legend|lines|markers|mathtext|patch|path|pdf|scatter|svg|text"
    r"|x?axis|[xy]tick|figure\.(dpi|facecolor|edgecolor|frameon|autolayout|constrained|subplot)"
    r"|savefig\.(bbox|dpi|edgecolor|facecolor|pad_inches|transparent))\b"
)
_NO_TIMES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Use our style, whatever the user's own is; one thread at a time.

    matplotlib's options are global: a plot that another thread makes meanwhile takes ours.
    """
    options: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if _LOOKS.match(key)}
    options |= _STYLE
    with _ONE_AT_A_TIME, mpl.rc_context(options):
        yield


def new_figure(
    width_in: float, height_in: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure that belongs to no window and no pyplot; call it while `styled`."""
    figure = Figure(figsize=(width_in, height_in), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def say(axes: Axes, text: str) -> None:
    """Show words where there is nothing to draw."""
    axes.axis("off")
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=DIM,
        wrap=True,
        parse_math=False,
    )


def whole_numbers(axes: Axes) -> None:
    """Count on both axes: no half images."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))


def render(figure: Figure, form: str, *, transparent: bool = False) -> bytes:
    """Return a figure as a file; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    form : {"png", "svg", "pdf"}
    transparent : bool
        Without the white ground.

    Returns
    -------
    bytes
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=form, metadata=_NO_TIMES[form], transparent=transparent)
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page that has other figures too.

    Parameters
    ----------
    figure : Figure
    name : str
        A plain word, unique in the page: ids are made of it.
    title : str
        What a screen reader says; plain words without markup.

    Returns
    -------
    str
        Without any address. Ink, grid lines and ground take the page's colours: ``currentColor``,
        ``var(--dim)``, ``var(--line)`` and ``var(--ground)``.
    """
    svg = render(figure, "svg", transparent=True).decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<style .*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would style the whole page
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[\d. -]+"', head)
    assert view_box is not None
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(\bhref="|url\()#', rf"\1#{name}-", body)
    for colour, variable in _OF_THE_PAGE.items():
        body = body.replace(colour, variable)
    return f'<svg {view_box[0]} role="img" aria-label="{title}">{body}'
