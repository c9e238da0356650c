"""The notebooks run from top to bottom without a person, and are kept without output."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from PIL import Image

from amatch_widgets import demo

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def load_runner():
    spec = importlib.util.spec_from_file_location("notebook_runner", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def without_a_person(monkeypatch):
    monkeypatch.setenv("AMATCH_HEADLESS", "1")
    monkeypatch.setenv("AMATCH_STEPS", "1")


def text_of(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    assert "widgets" not in notebook.metadata


def test_the_quickstart_runs_and_shows_what_each_page_brought(
    tmp_path, monkeypatch, without_a_person, capsys
):
    monkeypatch.setenv("AMATCH_IMAGES", "600")
    monkeypatch.setenv("AMATCH_PAGES", "2")
    html = tmp_path / "build" / "quickstart.html"
    load_runner().run(FOLDER / "quickstart.ipynb", html=html, folder=tmp_path)
    shown = capsys.readouterr().out
    assert "page 2: " in shown
    assert "found_so_far" in shown
    assert "page 2: " in html.read_text()
    # The person's own session is not touched: it has the 50 known examples and no score.
    journal = (tmp_path / "runs" / "quickstart-600" / "labels.jsonl").read_text().splitlines()
    assert len(journal) == 50


def test_the_quickstart_labels_nothing_for_a_person(tmp_path, monkeypatch):
    monkeypatch.delenv("AMATCH_HEADLESS", raising=False)
    monkeypatch.setenv("AMATCH_IMAGES", "600")
    notebook = load_runner().run(FOLDER / "quickstart.ipynb", folder=tmp_path)
    assert "Nothing was labelled." in text_of(notebook)
    journal = (tmp_path / "runs" / "quickstart-600" / "labels.jsonl").read_text().splitlines()
    assert len(journal) == 50


def test_own_images_get_from_a_folder_to_a_shortlist(tmp_path, monkeypatch, without_a_person):
    sky = demo.sky(80, seed=1, size=32, prevalence=0.2)
    images = tmp_path / "images"
    (images / "night 1").mkdir(parents=True)
    names = {}
    for index, image_id in enumerate(sky.ids):
        names[image_id] = f"night 1/{index:03d}.png"
        Image.fromarray(sky.read(index)).save(images / names[image_id])
    (images / "broken.jpg").write_bytes(b"")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label"])
        rows.writerows((names[i], label) for i, label in sky.first_labels(8, 12).items())
    monkeypatch.setenv("AMATCH_SOURCE", "images")
    monkeypatch.setenv("AMATCH_LABELS", "labels.csv")

    notebook = load_runner().run(FOLDER / "your_images.ipynb", folder=tmp_path)

    assert "81 images" in text_of(notebook)
    assert "broken.jpg" in text_of(notebook)
    with (tmp_path / "runs" / "my-images" / "shortlist.csv").open(newline="") as file:
        shortlist = list(csv.DictReader(file))
    assert {row["id"] for row in shortlist if row["score"]} == set(names.values())
    assert sum(row["label"] == "anomaly" for row in shortlist) == 8


def test_a_survey_gets_from_its_tiles_to_candidates_on_the_sky(
    tmp_path, monkeypatch, without_a_person, capsys
):
    monkeypatch.setenv("AMATCH_IMAGES", "300")
    monkeypatch.setenv("AMATCH_PAGES", "1")
    notebook = load_runner().run(FOLDER / "survey.ipynb", folder=tmp_path)
    assert "page 1: " in capsys.readouterr().out
    assert "'T02-000': \"100% of its pixels are missing in the band 'Y'" in text_of(notebook)
    run = tmp_path / "runs" / "survey-300"
    for name in ("candidates.vot", "candidates.fits"):
        candidates = Table.read(run / name)
        assert len(candidates) == 100
        assert abs(candidates["ra"] - 150).max() < 0.1
        assert abs(candidates["dec"] - 2).max() < 0.1
    assert (run / "candidates.reg").read_text().count("point(") == 100
    (cutouts,) = run.glob("cutouts-*")
    assert len(list(cutouts.glob("*.png"))) == 24
    journal = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    assert sum(line.get("by") == "truth" for line in journal) == 24


def test_the_survey_notebook_labels_nothing_for_a_person(tmp_path, monkeypatch):
    monkeypatch.delenv("AMATCH_HEADLESS", raising=False)
    monkeypatch.setenv("AMATCH_IMAGES", "150")  # of which five are rare
    notebook = load_runner().run(FOLDER / "survey.ipynb", folder=tmp_path)
    assert "Nothing was labelled." in text_of(notebook)
    journal = (tmp_path / "runs" / "survey-150" / "labels.jsonl").read_text().splitlines()
    assert len(journal) == 50


def test_an_archive_is_scored_here_and_on_a_cluster(tmp_path, monkeypatch, without_a_person):
    pytest.importorskip("distributed")
    for name, value in {"IMAGES": 300, "ARCHIVE": 200, "WORKERS": 1}.items():
        monkeypatch.setenv(f"AMATCH_{name}", str(value))
    text = text_of(load_runner().run(FOLDER / "cluster.ipynb", folder=tmp_path))
    assert "ArchiveScores(200 images, cycle 1) - complete" in text
    assert "1 workers" in text
    assert "ArchiveScores(200 images, cycle 2)\n" in text
    assert "rank_before" in text
    (archive,) = (tmp_path / "runs" / "cluster-300" / "session" / "archives").iterdir()
    here, there = (pq.read_table(archive / f"cycle=000{n}" / "part-00000.parquet") for n in (1, 2))
    assert here["score"].null_count == there["score"].null_count == 0
    assert here["score"] != there["score"]


def test_a_cell_that_fails_fails_the_run(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.ipynb"
    cell = nbformat.v4.new_code_cell("raise ValueError('no such thing')", id="one")
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))
    runner = load_runner()
    monkeypatch.setattr("sys.argv", ["run.py", str(path)])
    assert runner.main() == 1
    assert "no such thing" in capsys.readouterr().err


def test_no_notebook_names_a_path_of_the_machine_it_was_written_on():
    text = json.dumps([nbformat.read(path, as_version=4) for path in NOTEBOOKS])
    assert "/home/" not in text
    assert "/root/" not in text
