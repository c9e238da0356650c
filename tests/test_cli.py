"""The command line, with a session that only answers; tests/test_cli_runs.py does the real work."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import amatch_widgets as am
from amatch_widgets.cli import main
from amatch_widgets.errors import SourceError
from amatch_widgets.events import EventHub, StepDone
from amatch_widgets.labels import Label
from amatch_widgets.labels.merge import Merged, MergeResult
from amatch_widgets.learn.metrics import evaluate
from amatch_widgets.session.cutouts import Cutouts


class SevenImages:
    ids = tuple("abcdefg")

    def __len__(self) -> int:
        return len(self.ids)


class QuietSession:
    """Writes down how it is made and called; `on_wait` is what happens while one waits."""

    made = None
    on_wait = None
    notices = ()

    def __init__(self, source=None, **options) -> None:
        type(self).made = self
        self.options = {"source": source, **options}
        self.calls = []
        self.path = Path(options.get("path", "run"))
        self.source = SevenImages()
        self.step, self.cycle, self.scores_cycle = 12, 1, 1
        self.is_embedded, self.ranked_by = True, "both"
        self.ranking_note = "Ranked by the instant tier and the trained model."
        self.labels = SimpleNamespace(counts=lambda: {"anomaly": 2, "normal": 3})
        self.problems = {}
        self.hub = EventHub()
        self.metrics = evaluate(NOTHING > 0, NOTHING)

    @classmethod
    def open(cls, path, *, source=None):
        return cls(source, path=path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.append("close")

    def embed(self, archive="", *, n=None):
        self.calls.append(("embed", archive, n) if archive else "embed")

    def train(self, steps=None):
        self.calls.append(("train", steps))

    def score(self, archive=None, *, path=None, client=None):
        self.calls.append("score" if archive is None else ("score", archive, path, client))

    def stop(self):
        self.calls.append("stop")

    def wait(self):
        self.calls.append("wait")
        if type(self).on_wait is not None and "stop" not in self.calls:
            type(self).on_wait(self)

    def export(self, path, n=None):
        self.calls.append(("export", n))
        return Path(path)

    def export_cutouts(self, folder, n=None):
        self.calls.append(("cutouts", n))
        return Cutouts(folder, folder / "cutouts.csv", 4, {"b\x1b": "it has a hole"})

    def merge_labels(self, path, *, take=None, dry_run=False):
        self.calls.append(("merge", path, take, dry_run))
        line = Label(image_id="a", label="normal", by="ann", time="t")
        differs = Merged("a", line, dataclasses.replace(line, label="anomaly", by="ben"), None, True)
        return MergeResult("other", (differs,), notice="Cut \x1b short.", is_dry_run=dry_run)

    def figures(self, folder=None, formats=("png", "svg", "pdf")):
        self.calls.append(("figures", folder, tuple(formats)))
        return [Path("figures", f"metrics.{form}") for form in formats]

    def report(self, path=None, n=50):
        self.calls.append(("report", path, n))
        return Path("report.html") if path is None else path


NOTHING = np.zeros(0)


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(QuietSession, "on_wait", None)
    monkeypatch.setattr(am, "Session", QuietSession)
    return QuietSession


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "required"),
        (["train", "cutouts"], "--path"),
        (["train", "cutouts", "--path", "run", "--steps", "0"], "'0' is no whole number of at least 1"),
        (["demo", "--images", "many"], "'many' is no whole number"),
        (["demo", "--steps", "-1"], "'-1' is no whole number of at least 0"),
        (["merge", "run"], "OTHER"),
        (["merge", "run", "other", "--take", "both"], "invalid choice: 'both'"),
        (["fly"], "invalid choice"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_exits_with_2(arguments, word, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_train_hands_on_what_was_asked_for_and_nothing_else(session, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(QuietSession, "notices", ("l.csv: 1 of its ids fits no image",))
    labels = tmp_path / "l.csv"
    labels.write_text("id,label\na,normal\nx,anomaly\nb,anomaly\n")
    assert main(["train", "cutouts", "--labels", str(labels), "--path", "run", "--steps", "9"]) == 0
    assert session.made.options == {
        "source": "cutouts",
        "labels": labels,
        "path": Path("run"),
        "train": None,
        "image": None,
        "sample": None,
    }
    assert session.made.calls == [("train", 9), "wait", "close"]
    out, err = capsys.readouterr()
    assert err == "warning: l.csv: 1 of its ids fits no image\n"
    assert "run: 7 images, 12 steps, cycle 1" in out
    assert "labels: 2 anomalies, 3 normals" in out
    assert "ranking: Ranked by the instant tier and the trained model." in out
    assert "AUROC: too few to say" in out


def test_options_of_a_new_run_reach_its_configuration(session):
    options = ["--seed", "3", "--backbone", "resnet18", "--size", "96", "--sample", "500"]
    main(["train", "cutouts", "--path", "run", *options])
    made = session.made.options
    assert (made["train"].seed, made["train"].backbone, made["image"].size) == (3, "resnet18", 96)
    assert made["sample"] == 500


def test_other_images_are_scored_here_or_on_a_cluster(session, monkeypatch):
    assert main(["score", "run", "survey.zarr"]) == 0
    assert ("score", "survey.zarr", None, None) in session.made.calls
    addresses = []

    def connect(address):
        addresses.append(address)
        return contextlib.nullcontext("the client")

    monkeypatch.setattr("amatch_widgets.archive.cluster.connect", connect)
    call = ["score", "run", "survey.zarr", "--out", "s3://bucket/scores", "--scheduler", "tcp://node1:8786"]
    assert main(call) == 0
    assert ("score", "survey.zarr", "s3://bucket/scores", "the client") in session.made.calls
    assert addresses == ["tcp://node1:8786"]


def test_json_is_one_object_on_the_standard_output(session, capsys):
    session.on_wait = lambda s: s.hub.publish(StepDone(1, 1, 9, 2.0, 4.0))
    assert main(["score", "run", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["step"], result["n_images"], result["labels"]) == (12, 7, {"anomaly": 2, "normal": 3})
    assert captured.err == "training: step 1 of 9, 2 steps/s, 4 s left\n"


def test_embed_makes_the_embeddings_and_says_what_ranks(session, capsys):
    assert main(["embed", "run", "--source", "elsewhere", "--json"]) == 0
    assert session.made.options["source"] == "elsewhere"
    assert session.made.calls == ["embed", "wait", "close"]
    result = json.loads(capsys.readouterr().out)
    assert (result["is_embedded"], result["ranked_by"]) == (True, "both")


def test_embed_makes_those_of_the_best_of_an_archive(session):
    assert main(["embed", "run", "--archive", "survey", "--top", "5_000"]) == 0
    assert session.made.calls == [("embed", "survey", 5000), "wait", "close"]
    assert main(["embed", "run", "--archive", "survey"]) == 0
    assert session.made.calls[0] == ("embed", "survey", 100_000)


def test_ctrl_c_while_embedding_says_so(session, capsys):
    def on_wait(made):
        made.is_embedded = False
        raise KeyboardInterrupt

    session.on_wait = on_wait
    assert main(["embed", "run"]) == 130
    assert session.made.calls == ["embed", "wait", "stop", "wait", "close"]
    assert "Stopped while embedding; kept in run." in capsys.readouterr().err


def test_export_says_where_it_wrote(session, capsys):
    assert main(["export", "run", "out.csv", "--top", "5", "--source", "elsewhere"]) == 0
    assert session.made.options["source"] == "elsewhere"
    assert session.made.calls == [("export", 5), "close"]
    assert capsys.readouterr().out == "Wrote out.csv\n"


def test_export_writes_cutouts_too_or_alone_and_names_what_cannot_be_read(session, capsys):
    assert main(["export", "run", "out.fits", "--cutouts", "best", "--top", "5"]) == 0
    assert session.made.calls == [("export", 5), ("cutouts", 5), "close"]
    out, err = capsys.readouterr()
    assert out == "Wrote out.fits\nWrote 4 cutouts to best\n"
    assert "it has a hole" in err
    assert "\x1b" not in err
    assert main(["export", "run", "--cutouts", "best", "--json"]) == 0
    assert session.made.calls == [("cutouts", None), "close"]
    told = json.loads(capsys.readouterr().out)
    assert told["cutouts"] == {"folder": "best", "n_written": 4, "problems": {"b\x1b": "it has a hole"}}
    assert "file" not in told


def test_export_of_nothing_says_what_can_be_named(session, capsys):
    assert main(["export", "run"]) == 1
    assert "name a file, OUT, or a folder, --cutouts FOLDER" in capsys.readouterr().err


def test_merge_says_what_was_taken_and_writes_the_disagreements(session, tmp_path, capsys):
    table = tmp_path / "d.csv"
    assert (
        main(["merge", "run", "other", "--take", "newest", "--dry-run", "--disagreements", str(table)]) == 0
    )
    assert session.made.calls == [("merge", Path("other"), "newest", True), "close"]
    out, err = capsys.readouterr()
    assert out == f"MergeResult('other': 0 labels to take, 0 joined, 1 disagreement)\nWrote {table}\n"
    assert err == "warning: Cut \N{REPLACEMENT CHARACTER} short.\n"
    assert table.read_text().splitlines()[1] == "a,normal,ann,t,anomaly,ben,t,normal"
    assert main(["merge", "run", "other", "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)["merge"]
    assert (merged["n_labels"], merged["n_disagreements"], merged["file"]) == (0, 1, None)


def test_figures_are_listed_one_to_a_line(session, capsys):
    assert main(["figures", "run", "--out", "folder", "--format", "svg", "--format", "pdf"]) == 0
    assert session.made.calls == [("figures", Path("folder"), ("svg", "pdf")), "close"]
    assert capsys.readouterr().out == "figures/metrics.svg\nfigures/metrics.pdf\n"
    assert main(["figures", "run"]) == 0
    assert session.made.calls[0] == ("figures", None, ("png", "svg", "pdf"))


def test_report_says_where_it_wrote(session, capsys):
    assert main(["report", "run", "--out", "r.html", "--top", "5"]) == 0
    assert session.made.calls == [("report", Path("r.html"), 5), "close"]
    assert main(["report", "run"]) == 0
    assert session.made.calls[0] == ("report", None, 50)
    assert capsys.readouterr().out == "Wrote r.html\nWrote report.html\n"


def fail(error):
    def on_wait(_):
        raise error

    return on_wait


def test_an_error_is_one_plain_line_and_the_session_is_closed(session, capsys):
    session.on_wait = fail(SourceError("No images in 'cutouts\n\x1b[2J'."))
    assert main(["score", "run"]) == 1
    assert capsys.readouterr().err == "amatch: No images in 'cutouts \N{REPLACEMENT CHARACTER}[2J'.\n"
    assert session.made.calls[-1] == "close"


def test_an_unexpected_error_tells_how_to_see_more(session, capsys):
    session.on_wait = fail(KeyError("x"))
    assert main(["score", "run"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("amatch: unexpected KeyError: 'x'")
    assert "--debug" in err
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback(session, capsys):
    session.on_wait = fail(SourceError("No images."))
    assert main(["score", "run", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_stops_after_the_step_and_says_that_the_model_is_kept(session, capsys):
    session.on_wait = fail(KeyboardInterrupt())
    assert main(["train", "cutouts", "--path", "run"]) == 130
    assert session.made.calls == [("train", None), "wait", "stop", "wait", "close"]
    assert "Stopped after step 12; kept in run." in capsys.readouterr().err


def test_the_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("amatch 0.")
