"""What the documents name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nbformat
import pytest

import amatch_widgets as am

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / name
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/datalabs.md", "docs/keys.md")
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SET_WHEN_MADE = {"source", "path", "labels", "problems", "hub", "history", "config"}


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)\)", text_of(path))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_names_of_the_package_exist(path):
    names = set(re.findall(r"\bam\.(\w+)", text_of(path)))
    assert [name for name in names if not hasattr(am, name)] == []


def test_methods_of_the_session_exist():
    text = "\n".join(text_of(path) for path in [*DOCUMENTS, *NOTEBOOKS])
    names = set(re.findall(r"\b(?:session|hunt)\.(\w+)", text)) - {"json"}
    assert [name for name in names if not hasattr(am.Session, name) and name not in SET_WHEN_MADE] == []


def test_every_tested_version_is_pinned_once():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    names = [pin.split("==")[0] for pin in pins]
    assert names == sorted(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["figures"], *extras["lab"]]
    wanted = [w for w in wanted if not w.startswith("amatch-widgets[")]
    bare = {re.split(r"[<>=\[; ]", w)[0].lower().replace("_", "-") for w in wanted}
    assert bare <= set(names)
