"""The evidence between both tiers: each label once, from one kernel to the next."""

from __future__ import annotations

import json
import logging
import math
import threading
from pathlib import Path

import numpy as np
import pytest

from amatch_widgets.query.judge import judge, normal_scores
from amatch_widgets.session.evidence import Evidence

N = 200
IDS = [f"image {i}" for i in range(N)]
IDS[3], IDS[4] = 'a "quoted"\n\u2028 {"cycle": 1}', "torn \udcff name"
RNG = np.random.default_rng(0)
TRUTH = np.arange(N) % 4 == 0
INSTANT = (RNG.normal(size=N) + TRUTH).astype(np.float32)
DEEP = (RNG.normal(size=N) + 2 * TRUTH).astype(np.float32)
LEARNT = (0, 1, 2, 8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evidence.jsonl"


def truth(*indices):
    return {i: int(TRUTH[i]) for i in indices}


def begun(path, cycle=1, learnt=LEARNT, deep=DEEP):
    evidence = Evidence(path, IDS)
    evidence.begin(cycle, learnt, INSTANT, deep)
    return evidence


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_labels_that_the_model_has_not_learnt_from_test_it(path):
    evidence = begun(path)
    at = np.array([i for i in range(60) if i not in LEARNT])
    wanted = judge(normal_scores(INSTANT, at), normal_scores(DEEP, at), TRUTH[at])
    assert evidence.judgement(truth(*range(60))) == wanted
    assert (wanted.n_anomalies, wanted.n_normals) == (13, 43)
    assert repr(evidence) == "Evidence(56 records)"


def test_the_file_holds_what_was_learnt_and_each_record_once(path):
    evidence = begun(path)
    for _ in range(2):
        evidence.judgement(truth(1, 3, 4, 5))
    first, *records = lines(path)
    assert first == {"cycle": 1, "learnt": [IDS[i] for i in LEARNT]}
    assert [record["id"] for record in records] == [IDS[i] for i in (3, 4, 5)]
    assert {record["cycle"] for record in records} == {1}
    for name, scores in {"instant": INSTANT, "deep": DEEP}.items():
        np.testing.assert_array_equal([r[name] for r in records], normal_scores(scores, np.array([3, 4, 5])))


def test_before_any_training_there_is_nothing_to_judge(path):
    found = Evidence(path, IDS).judgement(truth(*range(60)))
    assert (found.weight, found.n_anomalies, found.n_normals) == (0, 0, 0)
    assert not path.exists()


def test_the_judgement_is_the_same_after_a_restart(path):
    labels = truth(*range(60))
    before = begun(path).judgement(labels)
    size = path.stat().st_size
    again = Evidence(path, IDS)
    assert again.judgement(labels) == before
    assert again.learnt_of(1) == set(LEARNT)
    assert again.learnt_of(2) is None
    again.begin(1, None, INSTANT, DEEP)
    assert again.judgement(labels) == before
    assert path.stat().st_size == size


def test_before_the_next_training_no_more_labels_test_anything(path):
    begun(path).judgement(truth(*range(40)))
    assert Evidence(path, IDS).judgement(truth(*range(60))).n_normals == 28  # 30, 2 of which it learnt


def test_a_restart_goes_on_with_what_the_model_has_learnt(path):
    begun(path)
    again = Evidence(path, IDS)
    again.begin(1, None, INSTANT, DEEP)
    found = again.judgement(truth(0, 1, 2, 8, 9))
    assert (found.n_anomalies, found.n_normals) == (0, 1)


def test_where_it_is_not_known_what_was_learnt_nothing_is_tested(path):
    evidence = begun(path)
    evidence.begin(2, None, INSTANT, DEEP)
    assert evidence.judgement(truth(*range(60))).n_normals == 0
    evidence.begin(1, None, INSTANT, DEEP)
    assert evidence.judgement(truth(*range(60))).n_normals == 43


def test_a_label_changed_or_taken_back_counts_as_it_is_now(path):
    evidence, labels = begun(path), truth(*range(60))
    before = evidence.judgement(labels)
    flipped = evidence.judgement({i: 1 - label for i, label in labels.items()})
    assert flipped.probability < before.probability
    assert (flipped.n_anomalies, flipped.n_normals) == (before.n_normals, before.n_anomalies)
    del labels[5]
    assert evidence.judgement(labels).n_normals == before.n_normals - 1
    assert evidence.judgement(labels | {5: 1}).n_anomalies == before.n_anomalies + 1
    assert len(lines(path)) == 57  # one record an image, however often it is labelled


def test_a_record_stays_that_of_its_cycle_and_counts_half_in_the_next(path):
    evidence, labels = begun(path), truth(*range(60))
    evidence.judgement(labels)
    evidence.begin(2, labels, INSTANT, -DEEP)
    found = evidence.judgement(labels | truth(*range(60, 100)))
    old = np.array([i for i in range(60) if i not in LEARNT])
    new = np.arange(60, 100)
    at = np.append(old, new)
    deep = np.append(normal_scores(DEEP, old), normal_scores(-DEEP, new))
    weights = np.append(np.full(len(old), 0.5), np.ones(len(new)))
    assert found == judge(normal_scores(INSTANT, at), deep, TRUTH[at], weights)
    assert found != judge(normal_scores(INSTANT, at), deep, TRUTH[at])


def test_records_fade_by_the_newest_cycle_on_file_before_the_next_training(path):
    evidence, labels = begun(path), truth(*range(60))
    fresh = evidence.judgement(labels)
    evidence.begin(3, labels, INSTANT, DEEP)
    faded = evidence.judgement(labels)
    assert faded.probability < fresh.probability
    assert Evidence(path, IDS).judgement(labels) == faded


def test_records_of_a_cycle_that_was_lost_count_no_more_than_once(path):
    evidence, labels = begun(path, cycle=4), truth(*range(60))
    fresh = evidence.judgement(labels)
    evidence.begin(2, labels, INSTANT, DEEP)
    assert evidence.judgement(labels) == fresh


def test_a_cycle_done_again_with_other_labels_is_written_anew(path):
    evidence = begun(path)
    evidence.begin(1, LEARNT, INSTANT, DEEP)
    assert len(lines(path)) == 1
    evidence.begin(1, [7], INSTANT, DEEP)
    assert Evidence(path, IDS).learnt_of(1) == {7}


def test_images_without_both_scores_test_nothing(path):
    deep = DEEP.copy()
    deep[[10, 11]] = np.nan
    evidence = begun(path, deep=deep)
    assert evidence.judgement(truth(9, 10, 11, 13)).n_normals == 2
    assert [line["id"] for line in lines(path)[1:]] == [IDS[9], IDS[13]]
    np.testing.assert_array_equal(lines(path)[1]["deep"], normal_scores(deep, np.array([9]))[0])


def test_ids_that_are_no_longer_in_the_source_are_left_out(path):
    begun(path).judgement(truth(*range(60)))
    kept = IDS[1:50]
    again = Evidence(path, kept)
    assert again.learnt_of(1) == {0, 1, 7}
    found = again.judgement({i: int(TRUTH[i + 1]) for i in range(len(kept))})
    assert found.n_anomalies + found.n_normals == 46  # 49 but the three it has learnt from


@pytest.mark.parametrize(
    "junk",
    [
        "{",
        "",
        "null",
        "3",
        "[]",
        "[" * 100_000,
        '{"cycle": 1}',
        '{"learnt": []}',
        '{"cycle": 1, "learnt": 3}',
        '{"cycle": 1, "learnt": [[]]}',
        '{"cycle": null, "learnt": []}',
        f'{{"cycle": {10**30}, "learnt": []}}',
        '{"cycle": 1, "id": "image 5", "instant": 1}',
        '{"cycle": 1, "id": ["image 5"], "instant": 1, "deep": 1}',
        '{"cycle": 1, "id": "image 5", "instant": NaN, "deep": 1}',
        '{"cycle": 1, "id": "image 5", "instant": 1, "deep": -1e300}',
    ],
)
def test_a_line_that_cannot_be_read_is_skipped(path, caplog, junk):
    labels = truth(*range(60))
    before = begun(path).judgement(labels)
    text = path.read_text("utf-8").split("\n", 2)
    path.write_text("\n".join([*text[:2], junk, text[2]]), "utf-8")
    again = Evidence(path, IDS)
    assert again.judgement(labels) == before
    assert again.learnt_of(1) == set(LEARNT)
    assert "cannot be read and is skipped" in caplog.text


@pytest.mark.parametrize("n_bytes", [1, 20])
def test_a_torn_last_line_costs_no_other_record(path, n_bytes):
    begun(path).judgement(truth(5, 6, 7))
    path.write_bytes(path.read_bytes()[:-n_bytes])
    again = Evidence(path, IDS)
    n = 3 if n_bytes == 1 else 2
    assert again.judgement(truth(5, 6, 7)).n_normals == n
    again.begin(1, None, INSTANT, DEEP)
    again.judgement(truth(5, 6, 7, 9, 10))
    assert Evidence(path, IDS).judgement(truth(5, 6, 7, 9, 10)).n_normals == 5


def test_a_full_disk_stops_nothing_and_costs_nothing_once_there_is_room(path, caplog, monkeypatch):
    labels = truth(*range(60))
    wanted = begun(path).judgement(labels)
    path.unlink()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        evidence = begun(path)
        assert evidence.judgement(labels) == wanted
    assert "evidence cannot be written" in caplog.text
    assert not path.exists()
    more = evidence.judgement(labels | truth(60))
    assert Evidence(path, IDS).judgement(labels | truth(60)) == more


def test_a_file_that_cannot_be_read_is_told_in_the_log(path, caplog):
    path.mkdir()
    with caplog.at_level(logging.ERROR):
        assert math.isnan(Evidence(path, IDS).judgement(truth(*range(9))).probability)
    assert "evidence cannot be read" in caplog.text


def test_threads_that_judge_at_once_record_each_image_once(path):
    evidence, start = begun(path), threading.Barrier(4)

    def work():
        start.wait(10)
        for n in range(20, 100):
            evidence.judgement(truth(*range(n)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = [line["id"] for line in lines(path)[1:]]
    assert len(ids) == len(set(ids)) == 95
