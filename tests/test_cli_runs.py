"""The command line doing its real work on small sets of images."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import amatch_widgets as am
from amatch_widgets.cli import main


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    """Make a folder of 60 small images, and a table with labels of both classes."""
    root = tmp_path_factory.mktemp("cutouts")
    sky = am.demo.sky(60, seed=2, size=32, prevalence=0.2)
    (root / "images").mkdir()
    for index, image_id in enumerate(sky.ids):
        Image.fromarray(sky.read(index)).save(root / "images" / f"{image_id}.png")
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label"])
        rows.writerows((f"{i}.png", label) for i, label in sky.first_labels(6, 10).items())
    return root


@pytest.fixture
def small(monkeypatch, light):
    """Let commands make their configuration from that of a light training."""
    monkeypatch.setattr(am, "TrainConfig", light)


def train(cutouts, run, *options):
    labels = str(cutouts / "labels.csv")
    size = ["--size", "32", "--steps", "2"]
    return ["train", str(cutouts / "images"), "--labels", labels, "--path", str(run), *size, *options]


def result_of(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("small")
def test_train_again_score_and_export_follow_each_other(cutouts, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out.csv"
    assert main(train(cutouts, run, "--seed", "0", "--json")) == 0
    trained = result_of(capsys)
    assert (trained["step"], trained["scores_cycle"], trained["n_images"]) == (2, 1, 60)
    assert trained["labels"] == {"anomaly": 6, "normal": 10}

    assert trained["is_embedded"]
    assert trained["ranked_by"] in {"instant", "deep", "both"}

    assert main(train(cutouts, run, "--json")) == 0
    assert result_of(capsys)["step"] == 4

    assert main(["embed", str(run)]) == 0
    assert "ranking: " in capsys.readouterr().out

    assert main(["score", str(run), "--json"]) == 0
    assert result_of(capsys)["step"] == 4

    assert main(["export", str(run), str(out), "--top", "7"]) == 0
    assert capsys.readouterr().out == f"Wrote {out}\n"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 7
    assert scores == sorted(scores, reverse=True)

    assert main(["figures", str(run), "--format", "svg", "--json"]) == 0
    assert [Path(file) for file in result_of(capsys)["files"]] == [
        run / "figures" / f"{name}.svg" for name in ("metrics", "discovery", "histogram", "sheet")
    ]
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'report.html'}\n"


@pytest.mark.usefixtures("small")
def test_the_demo_prints_what_each_page_brought(tmp_path, capsys):
    options = ["--images", "600", "--pages", "2", "--per-page", "12", "--steps", "1"]
    assert main(["demo", *options, "--path", str(tmp_path / "demo")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["page", "shown", "found", "by", "chance", "found", "so", "far"]
    assert [line.split()[:2] for line in lines[1:]] == [["1", "12"], ["2", "12"]]
    assert lines[2].endswith("of 1 in 24 looked at")


@pytest.mark.usefixtures("small")
def test_the_demo_without_training_ranks_by_the_embeddings(tmp_path, capsys):
    options = ["--images", "600", "--pages", "1", "--per-page", "12", "--steps", "0", "--json"]
    assert main(["demo", *options, "--path", str(tmp_path / "demo")]) == 0
    result = result_of(capsys)
    assert (result["step"], result["ranked_by"]) == (0, "instant")
    assert [page["shown"] for page in result["pages"]] == [12]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train", "no/such/folder", "--path", "run"], "no/such/folder"),
        (["embed", "no-run"], "no-run"),
        (["score", "no-run"], "no-run"),
        (["export", "no-run", "out.csv"], "no-run"),
    ],
)
def test_what_is_not_there_is_one_plain_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert word in err
    assert "unexpected" not in err
    assert len(err.splitlines()) == 1


def test_training_without_labels_says_what_is_needed(cutouts, tmp_path, capsys):
    assert main(["train", str(cutouts / "images"), "--path", str(tmp_path / "run"), "--size", "32"]) == 1
    err = capsys.readouterr().err
    assert "anomaly" in err
    assert "unexpected" not in err


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_in_a_real_process_keeps_the_model(cutouts, tmp_path):
    run = tmp_path / "run"
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from amatch_widgets.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *train(cutouts, run, "--steps", "100000")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            said = []
            for line in process.stderr:  # ends with the process
                said.append(line)
                if line.startswith("training: step"):
                    process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
        finally:
            process.kill()
    assert code == 130, "".join(said)
    assert "; kept in " in said[-1]
    stopped_after = int(said[-1].split("after step ")[1].split(";")[0])
    with am.Session.open(run) as session:
        assert session.step == stopped_after >= 1
