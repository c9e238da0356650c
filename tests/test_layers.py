"""What an import brings with it, seen from outside in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PARTS = {
    "Controls",
    "Detail",
    "Gallery",
    "Plots",
    "Preview",
}  # of the dashboard: of no use without a notebook
NOTEBOOK = {"ipywidgets", "ipyvuetify", "traitlets", "IPython", "comm"}


def loaded_by(statement: str) -> set[str]:
    """Give the top-level modules that are loaded after `statement`."""
    code = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_loads_neither_torch_nor_widgets():
    heavy = {"torch", "torchvision", "timm", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib"}
    assert not loaded_by("import amatch_widgets") & (NOTEBOOK | heavy)


@pytest.mark.parametrize("module", ["session", "demo", "hunt"])
def test_the_engine_loads_no_notebook_and_no_plots(module):
    assert not loaded_by(f"import amatch_widgets.{module}") & (NOTEBOOK | {"matplotlib"})


def test_the_report_loads_no_notebook():
    assert not loaded_by("import amatch_widgets.report.figures") & NOTEBOOK


def test_the_command_line_shows_its_help_without_torch():
    statement = "import amatch_widgets.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(statement) & (NOTEBOOK | {"torch", "timm"})


def test_each_public_name_is_found_without_a_notebook():
    statement = f"import amatch_widgets as am\nfor name in set(am.__all__) - {PARTS}: getattr(am, name)"
    assert not loaded_by(statement) & NOTEBOOK
