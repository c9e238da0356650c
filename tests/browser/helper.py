"""What several browser tests do and ask: open the dashboard, look at tiles, read the journal."""

from __future__ import annotations

import json

# Texts that would do something if they were taken for markup, code or an address. Each can be a file's path.
HOSTILE = [
    '<img src=x onerror="window.hit = 1">',
    "<script>window.hit = 2</script>",
    "{{ constructor.constructor('window.hit = 3')() }}",
    "\"double\" ' onmouseover='window.hit = 4'",
    "</style></title></svg><svg onload='window.hit = 5'>",
    "javascript:window.hit=6",
]


def ready(nb, first=0):
    """Run a cell that makes the session and the next one, which shows it; give the browser's page."""
    nb.run(first)
    assert "Error" not in nb.output(first), nb.output(first)
    nb.run(first + 1)
    nb.page.wait_for_selector(".amw-tile img")
    return nb.page


def show(notebook, cells, **options):
    """Open a notebook of these cells, with the dashboard of the second."""
    nb = notebook(cells, **options)
    ready(nb)
    return nb


def tile(page, index):
    return page.locator(f'.amw-tile[data-index="{index}"]')


def titles(page):
    """The ids of the images on the page."""
    return page.eval_on_selector_all(".amw-tile", "tiles => tiles.map(t => t.title)")


def cursor(page):
    return int(page.get_attribute(".amw-cursor", "data-index"))


def wait_label(page, index, label):
    """Wait until a tile shows a label that is on disk."""
    page.wait_for_selector(f'.amw-tile[data-index="{index}"][data-label="{label}"][data-kept="yes"]')


def records(tmp_path):
    """The lines of the journal that say something of an image."""
    lines = (tmp_path / "run" / "labels.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "id" in record]


def labels(tmp_path):
    """The last label of each image."""
    return {record["id"]: record["label"] for record in records(tmp_path)}


def is_inert(page):
    """Whether none of the hostile texts has run, or has become an element, an attribute or a link."""
    return page.evaluate(
        """() => window.hit === undefined && !document.querySelector(
            '[onerror], [onmouseover], img[src="x"], svg[onload], a[href^="javascript"], .amw-root script'
        )"""
    )
