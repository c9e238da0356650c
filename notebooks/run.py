"""Run a notebook without a browser: show what its marked cells print, and keep an HTML copy.

The cells to show carry the tag ``headless``. Environment variables reach the notebook, which reads its
settings from them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

WIDGET = "application/vnd.jupyter.widget-view+json"


class TalkingClient(NotebookClient):  # type: ignore[misc]
    """Print the output of the cells tagged ``headless`` while they run."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Handle one message of the kernel."""
        if "headless" in cell.metadata.get("tags", ()):
            content = msg["content"]
            if msg["msg_type"] == "stream" and content["name"] == "stdout":
                print(content["text"], end="", flush=True)
            elif msg["msg_type"] in {"execute_result", "display_data"} and "text/plain" in content["data"]:
                print(content["data"]["text/plain"], flush=True)
        return super().process_message(msg, cell, cell_index)


def run(path: Path, *, html: Path | None = None, folder: Path | None = None, timeout_s: int = 3600) -> Any:
    """Run the notebook at `path` and give it back with its outputs; the file itself is not changed.

    Parameters
    ----------
    path : Path
        The notebook.
    html : Path, optional
        Where to keep a copy with all outputs.
    folder : Path, optional
        Where the kernel starts; None for the notebook's own folder.
    timeout_s : int
        Longest time in s that one cell may take.

    Returns
    -------
    NotebookNode
        The notebook with its outputs.
    """
    notebook = nbformat.read(path, as_version=4)
    client = TalkingClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # of the kernel: what the notebook says comes through anyway
        resources={"metadata": {"path": str(folder or path.parent)}},
    )
    client.execute()
    if html is not None:
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                # A dashboard lives with its kernel. Its text says more in a copy than an empty frame.
                output.get("data", {}).pop(WIDGET, None)
        body, _ = HTMLExporter().from_notebook_node(notebook)
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(body, encoding="utf-8")
    return notebook


def main() -> int:
    """Run the notebook named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--html", type=Path, help="where to keep a copy with all outputs")
    arguments = parser.parse_args()
    try:
        run(arguments.notebook, html=arguments.html)
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.html is not None:
        print(f"An HTML copy is in {arguments.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
