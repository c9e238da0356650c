"""Pieces of an HTML page from untrusted text: every leaf goes through `text`, and there is no script."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from amatch_widgets.report.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["details", "page", "section", "table", "text"]

# No script, no request, whatever a reader's tool makes of the page; `style` is that of the figures.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# A template engine that a page is pasted into (the notebook's among them) would run these.
_BRACES = str.maketrans({"{": "&#123;", "}": "&#125;"})


def text(value: object) -> str:
    """Return `value` as text for a page, and for an attribute in double quotes.

    Parameters
    ----------
    value : object
        What is shown is its ``str``; None is shown as nothing. Half a character and control
        characters, as file names may hold, are shown as such and spoil nothing.

    Returns
    -------
    str
    """
    if value is None:
        return ""
    valid = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", valid)).translate(_BRACES)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> str:
    """Return a table.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : iterable of sequence
        The cells, as plain values.
    numbers : sequence of str
        Columns that are aligned to the right.
    whole : sequence of str
        Columns whose cells are not broken into lines.

    Returns
    -------
    str
    """
    kinds = dict.fromkeys(whole, "whole") | dict.fromkeys(numbers, "number")
    looks = [f' class="{kinds[name]}"' if name in kinds else "" for name in head]
    cells = "".join(
        f'<th scope="col"{look}>{text(name)}</th>' for name, look in zip(head, looks, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{look}>{text(cell)}</td>" for cell, look in zip(row, looks, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'
    )


def details(summary: str, body: str, *, is_open: bool) -> str:
    """Fold markup away under a line of plain text."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>\n{body}</details>\n"


def section(title: str, *parts: str) -> str:
    """Put markup under a heading of plain text."""
    return f"<section>\n<h2>{text(title)}</h2>\n{''.join(parts)}</section>\n"


def page(title: str, body: str) -> str:
    """Return a whole page: no request, no script, light or dark as the reader has it, light on paper.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        Markup.

    Returns
    -------
    str
    """
    return f"""<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""
