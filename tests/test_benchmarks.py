"""Every benchmark says what it measures and ends with one JSON object."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PROGRAMS = sorted(p for p in FOLDER.glob("*.py") if "__main__" in p.read_text("utf-8"))  # and no helpers


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, FOLDER / program, *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "report", raising=False)
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_help_says_what_is_measured_and_offers_json(program):
    done = run(program.name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout
    about = ast.get_docstring(ast.parse(program.read_text("utf-8")))
    assert about.splitlines()[0] in done.stdout


def test_the_provenance_names_machine_versions_and_commit(monkeypatch):
    found = load("report", monkeypatch).provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= 1
    assert found["python"].startswith("3.")
    assert found["versions"]["torch"]
    assert set(found) >= {"processor", "system", "commit"}


def test_the_peak_of_memory_is_that_of_this_process_alone(monkeypatch):
    code = (
        "import subprocess, sys\n"
        "ballast = b'x' * 2**28\n"  # the child must not be charged with it
        "ask = 'from report import peak_memory_mb; print(peak_memory_mb())'\n"
        "print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True).stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=FOLDER,
        env={"PYTHONPATH": str(FOLDER)},
    )
    assert 1 < float(done.stdout) < 100


def test_a_small_hunt_leaves_room_for_twenty_thousand_images_within_two_gigabytes():
    done = run("memory.py", "--images", "600", "--steps", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["benchmark"] == "memory"
    assert {"images", "seed", "cores", "versions", "commit", "wall_s"} <= set(figures)
    assert figures["import_mb"] <= figures["session_mb"] <= figures["peak_mb"]
    cached_mb = (20_000 - 600) * 64 * 64 * 3 / 2**20  # what more images add: their pixels, kept
    assert figures["peak_mb"] + cached_mb < figures["limit_mb"], figures


# ---- hunt.py ----------------------------------------------------------------------------------


def record(mode, seed, rows):
    columns = {"paper": ["auroc", "auprc", "top1pct_precision"], "hunt": ["found@24", "found@72"]}[mode]
    return {
        "case": "galaxyzoo1-merger",
        "mode": mode,
        "seed": seed,
        "columns": columns,
        "rows": rows,
        "waits_s": [9.0, 2.0, 3.0],
        "peak_mb": 1000 + seed,
    }


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.json"
    probe = {
        "paper": {
            "mean": [[0.6, 0.03, 0.05], [0.65, 0.04, 0.06]],
            "sem": [[0.01, 0.002, 0.006]] * 2,
            "seeds": 5,
        },
        "hunt": {"mean": [0.8, 3.2], "sem": [0.5, 0.9], "seeds": 4},
        "images": "128 px",
    }
    path.write_text(
        json.dumps(
            {
                "galaxyzoo1-merger": {
                    "frozen_probe": probe,
                    "other": {"paper": {"mean": [[0.5, 0.1, 0.2]], "seeds": 1}},
                }
            }
        )
    )
    return path


def test_tables_give_mean_and_standard_error_beside_the_references(monkeypatch, reference):
    records = [
        record("paper", 0, [[0.7, 0.1, 0.2], [0.8, 0.2, 0.3]]),
        record("paper", 1, [[0.9, 0.1, 0.4], [0.8, 0.4, 0.3]]),
        record("hunt", 0, [[3, 10]]),
    ]
    lines = load("hunt", monkeypatch).tables(records, reference).splitlines()
    assert lines == [
        "",
        "| case | method | cycle | auroc | auprc | top1pct_precision | seeds |",
        "|---|---|---|---|---|---|---|",
        "| galaxyzoo1-merger | **ours** | 1 | 0.800 ± 0.100 | 0.100 ± 0.000 | 0.300 ± 0.100 | 2 |",
        "| galaxyzoo1-merger | **ours** | 2 | 0.800 ± 0.000 | 0.300 ± 0.100 | 0.300 ± 0.000 | 2 |",
        "| galaxyzoo1-merger | frozen_probe | 1 | 0.600 ± 0.010 | 0.030 ± 0.002 | 0.050 ± 0.006 | 5 |",
        "| galaxyzoo1-merger | frozen_probe | 2 | 0.650 ± 0.010 | 0.040 ± 0.002 | 0.060 ± 0.006 | 5 |",
        "| galaxyzoo1-merger | other | 1 | 0.500 | 0.100 | 0.200 | 1 |",
        "",
        "| case | method | found@24 | found@72 | seeds |",
        "|---|---|---|---|---|",
        "| galaxyzoo1-merger | **ours** | 3.0 | 10.0 | 1 |",
        "| galaxyzoo1-merger | frozen_probe | 0.8 ± 0.5 | 3.2 ± 0.9 | 4 |",
        "",
        "Wait between pages: median 2.5 s, longest 3.0 s.",
        "",
        "Peak memory: 1001 MB.",
    ]


def test_without_records_there_is_no_table(monkeypatch, reference):
    assert load("hunt", monkeypatch).tables([], reference) == ""


def test_a_result_file_is_read_line_by_line(monkeypatch, tmp_path):
    hunt = load("hunt", monkeypatch)
    assert hunt.read(tmp_path / "absent.jsonl") == []
    path = tmp_path / "hunt.jsonl"
    path.write_text('{"seed": 1}\n{"seed": 2}\n')
    assert [r["seed"] for r in hunt.read(path)] == [1, 2]


@pytest.mark.parametrize("program", ["hunt.py", "deep.py", "probe.py", "ablation.py"])
def test_without_the_cases_each_says_which_folder_is_missing(program, tmp_path):
    done = run(program, "--shared", str(tmp_path))
    assert done.returncode == 2
    assert "name the folder with --shared" in done.stderr


# ---- probe.py ------------------------------------------------------------------


def paper_and_hunt(case, seed, auprc, found):
    return [
        {
            "case": case,
            "mode": "paper",
            "seed": seed,
            "columns": ["auroc", "auprc", "top1pct_precision"],
            "rows": [[0.5, value, 0.25] for value in auprc],
        },
        {
            "case": case,
            "mode": "hunt",
            "seed": seed,
            "columns": ["found@120", "found@240"],
            "rows": [found],
        },
    ]


def test_a_play_labels_what_ranks_highest_and_counts_the_anomalies(monkeypatch):
    probe = load("probe", monkeypatch)
    truth = np.arange(300) % 10 == 0
    given = []

    def score(labels):
        given.append(dict(labels))
        return -np.arange(300) // 2  # in pairs of ties

    found = probe.Play(truth, {0: 1, 1: 0}, score).hunt()
    assert found["found"] == [2, 4, 7, 9, 12, 14, 16, 19, 21, 24]
    assert found["rows"] == [[2, 7, 12, 24]]
    assert given[0] == {0: 1, 1: 0}
    assert sorted(given[1]) == list(range(26))

    given.clear()
    rows = probe.Play(truth, {0: 1, 1: 0}, score).paper()["rows"]
    assert [sorted(labels) for labels in given[:2]] == [[0, 1], [*range(13), *range(20, 101, 10)]]
    assert [len(row) for row in rows] == [3, 3, 3]
    assert rows[0][2] == 0  # none of 2, 3 and 4


def test_differences_are_taken_between_runs_of_the_same_case_and_seed(monkeypatch):
    probe = load("probe", monkeypatch)
    case = "galaxyzoo1-merger"
    ours = paper_and_hunt(case, 0, [0.2, 0.5, 0.5], [10, 20]) + paper_and_hunt(case, 1, [0.1] * 3, [7, 7])
    theirs = paper_and_hunt(case, 1, [0.1] * 3, [1, 2]) + paper_and_hunt(case, 0, [0.1] * 3, [8, 1])
    lines = probe.paired_tables(ours, theirs).splitlines()
    assert f"| {case} | 1 | +0.050 ± 0.050 | +0.000 ± 0.000 | 2 |" in lines
    assert f"| {case} | 0-4 | +4.0 ± 2.0 | +12.0 ± 7.0 | +0.150 ± 0.150 |" in lines
    assert probe.signed([3.0, 5.0, 4.0], 1) == "**+4.0 ± 0.6**"
    assert probe.signed([-1.0, 1.0], 1) == "+0.0 ± 1.0"
    assert probe.signed([1.0], 1) == "+1.0"


def test_the_probe_made_again_is_measured_in_errors_of_the_reference(monkeypatch):
    probe = load("probe", monkeypatch)
    case = "galaxyzoo1-merger"
    records = [r for seed in (0, 1) for r in paper_and_hunt(case, seed, [0.1], [10, 20 + 2 * seed])]
    given = {
        "paper": {"mean": [0.5, 0.4, 0.25], "sem": [0.1] * 3},
        "hunt": {"mean": [9, 20], "sem": [2, 0.5]},
    }
    lines = probe.reproduction(records, {case: {"frozen_probe": given}}).splitlines()
    assert lines[2:] == [
        f"| {case} | paper | 3 | 2 | 2 | -1.0 | -3.0 |",
        f"| {case} | hunt | 2 | 1 | 2 | +1.2 | +2.0 |",
    ]


def test_photographs_are_reduced_before_they_are_enlarged(monkeypatch):
    probe = load("probe", monkeypatch)
    stripes = np.zeros((1, 84, 84, 3), np.uint8)
    stripes[:, :, ::2] = 255  # too fine for half the side
    assert probe.fed(stripes, None).shape == (1, 128, 128, 3)
    assert probe.fed(stripes, 32).shape == (1, 128, 128, 3)
    assert probe.fed(stripes, 32).std() < 0.2 * probe.fed(stripes, None).std()


# ---- ablation.py ------------------------------------------------------------------------------


def test_every_variant_of_the_ablation_ranks_and_only_the_default_is_the_product(monkeypatch):
    from amatch_widgets.query.head import InstantHead  # noqa: PLC0415

    ablation = load("ablation", monkeypatch)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(300, 16)) * np.geomspace(1, 0.1, 16)).astype(np.float16)
    spaces = [slice(0, 8), slice(8, 16)]
    ids = [f"{i:03}" for i in range(300)]
    anomalies = [ids[i] for i in np.argsort(-vectors[:, 0])[:40]]
    case = ablation.Case(
        Path(), ids, frozenset(anomalies), {"0": {"anomaly": anomalies[:8], "normal": ids[:2]}}
    )

    class Made:
        def of(self, wanted):
            parts = [vectors[:, spaces[i]] for i in wanted]
            return np.concatenate(parts, 1), spaces[: len(parts)]

    found = {
        name: ablation.run(Made(), case, variant, "paper", 0)["rows"]
        for name, variant in ablation.VARIANTS.items()
        if not variant.feeds
    }
    head = InstantHead(vectors, spaces, np.ones(300, bool))
    product = ablation.Play.start(case, "paper", 0, lambda labels: head.fit(labels).scores).paper()["rows"]
    assert found[ablation.DEFAULT] == product
    assert [name for name, rows in found.items() if rows == product] == [ablation.DEFAULT]


def test_a_variant_that_does_not_touch_a_case_counts_there_as_the_default(monkeypatch):
    ablation = load("ablation", monkeypatch)
    default, changed = [], []
    for seed in (0, 1):
        for case in ("galaxyzoo1-merger", "miniimagenet-crate"):
            default += paper_and_hunt(case, seed, [0.1] * 3, [5, 6])
        changed += paper_and_hunt("galaxyzoo1-merger", seed, [0.3] * 3, [7, 6])
    records = [r | {"variant": ablation.DEFAULT} for r in default]
    records += [r | {"variant": "galaxies at 192 px"} for r in changed]
    lines = ablation.tables(records).splitlines()
    assert "| galaxies at 192 px | 0-4 | +1.0 ± 0.6 | +0.0 ± 0.0 | +0.100 ± 0.058 |" in lines
    assert "| galaxies at 192 px | galaxies | **+2.0 ± 0.0** | +0.0 ± 0.0 | **+0.200 ± 0.000** |" in lines
    assert not any(line.startswith("| galaxies at 192 px | photographs") for line in lines)
    said = ablation.agreement(records, default[:2])
    assert "found@120 +0.0 on average and 0.0 at most (1 runs)" in said


# ---- step.py ----------------------------------------------------------------------------------


SHARED = FOLDER.parents[1] / "shared"


@pytest.mark.skipif(not (SHARED / "bench" / "reference_step.py").is_file(), reason="no ../shared/bench here")
def test_steps_scores_and_embeddings_are_compared_with_what_is_usual():
    small = ["--sizes", "32", "--steps", "1", "--rounds", "1", "--images", "16", "--workers", "0"]
    done = run("step.py", *small, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["benchmark"] == "step"
    assert {"threads", "cores", "versions", "commit", "seeds"} <= set(figures)
    for variant in ("", "_whole", "_usual"):
        ratio = figures["reference_step_s_32px"] / figures[f"step_s_32px{variant}"]
        assert figures[f"ratio_32px{variant}"] == pytest.approx(ratio, rel=0.1)
    for kind in ("score", "embed"):
        ratio = figures[f"{kind}_images_per_s"] / figures[f"{kind}_plain_images_per_s"]
        assert figures[f"{kind}_ratio"] == pytest.approx(ratio, rel=0.1)


def test_without_the_reference_the_step_says_which_folder_is_missing(tmp_path):
    done = run("step.py", "--shared", str(tmp_path))
    assert done.returncode == 2
    assert "name the folder with --shared" in done.stderr


def test_the_plain_loops_give_what_the_fast_ones_give(monkeypatch):
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415
    from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415
    from amatch_widgets.learn.inference import Inference  # noqa: PLC0415

    step = load("step", monkeypatch)
    model = build_classifier("test_efficientnet", weights="random").eval()
    images = step.noise(5, 64)
    scores = Inference(model, precision="float32").scores(images)
    assert step.plain_scores(model, images).numpy() == pytest.approx(scores, abs=1e-4)
    raw = Embedder(model, side=64, n_views=1, precision="float32").raw(images)
    assert step.plain_features(model)(images).numpy() == pytest.approx(raw, abs=1e-3)


def deep_record(seed, instant, deep, variant="default"):
    auprc = {"instant": instant, "deep": deep, "blend 0.5": instant, "blend 1": instant, "blend 2": instant}
    return {
        "case": "galaxyzoo1-merger",
        "start": "pages",
        "seed": seed,
        "variant": variant,
        "auprc": auprc,
        "train_s": 40.0 + seed,
    }


def test_what_the_deep_tier_adds_is_paired_by_seed(monkeypatch):
    records = [deep_record(0, 0.1, 0.2), deep_record(1, 0.3, 0.5), deep_record(0, 0.1, 0.05, "hard")]
    _, header, _, default, hard = load("deep", monkeypatch).tables(records).splitlines()
    assert header.startswith("| variant | case (pages) | instant | deep |")
    assert default.startswith(
        "| default | galaxyzoo1-merger | 0.200 | 0.350 (+0.150 ± 0.050) | 0.200 (+0.000"
    )
    assert default.endswith("| 0, 1 | 41 |")
    assert hard.startswith("| hard | galaxyzoo1-merger | 0.100 | 0.050 (-0.050) |")


def test_many_labels_are_drawn_by_the_seed_alone(monkeypatch):
    module = load("deep", monkeypatch)
    ids = [f"{i:04d}.png" for i in range(2000)]
    case = module.Case(Path(), ids, frozenset(ids[:100]), {})
    labels = module.many(case, 3)
    assert sorted(labels.values()) == ["anomaly"] * 20 + ["normal"] * 480
    assert {i for i, label in labels.items() if label == "anomaly"} <= case.anomalies
    assert labels == module.many(case, 3) != module.many(case, 4)


# ---- explain.py -------------------------------------------------------------------------------


def test_maps_are_timed_idle_and_beside_a_training():
    small = ["--images", "120", "--explained", "2", "--backbone", "test_resnet"]
    done = run("explain.py", *small, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["benchmark"] == "explain"
    assert {"explained", "cores", "versions", "commit", "seeds"} <= set(figures)
    assert figures["step_s"] > 0
    for when in ("idle", "training"):
        for kind in ("coarse", "fine"):
            assert 0 < figures[f"{kind}_{when}_s"] <= figures[f"{kind}_{when}_longest_s"]


# ---- scale.py ---------------------------------------------------------------------------------


def test_a_gpu_is_measured_only_where_there_is_one():
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run("scale.py", "--what", "gpu")
    assert done.returncode == 2
    assert "PyTorch sees none here" in done.stderr


def test_every_stage_of_a_scoring_is_measured_and_the_whole(monkeypatch):
    scale = load("scale", monkeypatch)
    found = scale.gpu(300, "cpu")
    for row in found.values():
        assert list(row["images_per_s"]) == ["read", "decode", "stretch", "transfer", "compute", "whole"]
        assert all(rate > 0 for rate in row["images_per_s"].values())
        whole = row["images_per_s"]["whole"]
        assert row["hours_for_1e8"]["whole"] == pytest.approx(1e8 / whole / 3600, rel=0.1)
    assert len(scale._SHOW["gpu"](found)) == 1 + 3 * 6


def test_ids_of_each_kind_of_source_are_opened_and_found(monkeypatch, tmp_path):
    kinds = load("scale_ids", monkeypatch)
    for kind in kinds.KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        kinds.make(kind, 2_100, folder)
        assert kinds.open_it(kind, 2_100, folder)["n"] == 2_100


def test_pages_and_questions_are_timed_on_the_rows_that_a_scoring_writes(monkeypatch, tmp_path):
    scale = load("scale", monkeypatch)
    for name in ("queries", "gallery"):
        found = getattr(scale, name)(10_000, tmp_path, 1)
        assert all(seconds >= 0 for seconds, _ in found["seconds"].values())
        head, row = scale._SHOW[name]([found])
        assert len(head) == len(row)


def test_a_scoring_that_is_killed_twice_is_shown_to_be_whole():
    done = run("scale.py", "--what", "kill", "--kill-images", "6000", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["kill"]
    assert (found["rows"], found["each_once"], found["scores_as_alone"]) == (6_000, True, True)
    assert found["killed_at"][0] >= 2_000
    assert found["killed_at"][1] >= 4_000
    assert all(lost >= 0 for lost in found["lost_images"])
