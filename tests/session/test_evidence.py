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
    evidence.begin(cycle, learnt, deep)
    return evidence


def judged(evidence, labels, scores=INSTANT, known=()):
    """Give the labels while an instant fit with these scores ranks, and judge."""
    evidence.ask(labels, scores, known)
    return evidence.judgement(labels)


def wanted_of(at, instant=INSTANT, deep=DEEP):
    at = np.array(at)
    return judge(normal_scores(instant, at), normal_scores(deep, at), TRUTH[at])


def n_tests(evidence, labels):
    found = evidence.judgement(labels)
    return found.n_anomalies + found.n_normals


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


# ---- what is asked --------------------------------------------------------------------------


def test_labels_that_the_model_has_not_learnt_from_test_it(path):
    evidence = begun(path)
    wanted = wanted_of([i for i in range(60) if i not in LEARNT])
    assert judged(evidence, truth(*range(60))) == wanted
    assert (wanted.n_anomalies, wanted.n_normals) == (13, 43)
    assert repr(evidence) == "Evidence(60 asked, 56 tests)"


def test_each_label_is_tested_with_the_scores_it_was_offered_by(path):
    evidence = begun(path)
    later = INSTANT[::-1].copy()
    evidence.ask(truth(*range(10, 40)), INSTANT, LEARNT)
    found = judged(evidence, truth(*range(10, 60)), later, range(40))
    at = np.arange(10, 60)
    instant = np.where(at < 40, normal_scores(INSTANT, at), normal_scores(later, at))
    assert found == judge(instant, normal_scores(DEEP, at), TRUTH[at])


def test_an_instant_fit_that_knew_the_label_is_not_asked(path):
    evidence = begun(path)
    evidence.ask(truth(*range(60)), INSTANT, {*range(5, 50)})
    assert n_tests(evidence, truth(*range(60))) == 12  # 3, 4 and 50-59


def test_an_image_is_asked_once(path):
    evidence, labels = begun(path), truth(*range(60))
    before = judged(evidence, labels)
    assert judged(evidence, labels, -INSTANT) == before


def test_images_without_an_instant_score_are_asked_when_they_have_one(path):
    holes = INSTANT.copy()
    holes[[10, 11]] = np.nan, np.inf
    evidence = begun(path)
    evidence.ask(truth(9, 10, 11, 13), holes, ())
    assert n_tests(evidence, truth(9, 10, 11, 13)) == 2
    assert lines(path)[1]["instant"] == normal_scores(holes, np.array([9]))[0]
    evidence.ask(truth(10), INSTANT, ())
    assert n_tests(evidence, truth(9, 10, 11, 13)) == 3


def test_images_without_a_deep_score_test_nothing(path):
    deep = DEEP.copy()
    deep[[10, 11]] = np.nan
    evidence = begun(path, deep=deep)
    assert judged(evidence, truth(9, 10, 11, 13)).n_normals == 2
    assert [line["id"] for line in lines(path) if "deep" in line] == [IDS[9], IDS[13]]
    assert lines(path)[-2]["deep"] == normal_scores(deep, np.array([9]))[0]


# ---- what tests which model -----------------------------------------------------------------


def test_labels_given_while_the_model_was_trained_and_scored_test_it_at_once(path):
    evidence = Evidence(path, IDS)
    assert np.isnan(judged(evidence, truth(*range(60))).probability)  # there is no model yet
    evidence.begin(1, range(20), DEEP)
    assert evidence.judgement(truth(*range(60))) == wanted_of(range(20, 60))


def test_before_any_training_there_is_nothing_to_judge(path):
    found = Evidence(path, IDS).judgement(truth(*range(60)))
    assert (found.weight, found.n_anomalies, found.n_normals) == (0, 0, 0)
    assert not path.exists()


def test_where_it_is_not_known_what_was_learnt_nothing_is_tested(path):
    evidence, labels = begun(path), truth(*range(60))
    evidence.begin(2, None, DEEP)
    assert judged(evidence, labels).n_normals == 0
    evidence.begin(1, None, DEEP)
    assert evidence.judgement(labels).n_normals == 43


def test_an_image_tests_one_model(path):
    evidence, labels = begun(path), truth(*range(60))
    judged(evidence, labels)
    evidence.begin(2, (), -DEEP)
    assert [line["cycle"] for line in lines(path) if "deep" in line] == [1] * 56


def test_a_model_remembers_the_labels_of_earlier_cycles_that_were_taken_back(path):
    evidence = begun(path)
    evidence.begin(2, [7], DEEP)
    assert evidence.learnt_of(2) == {7, *LEARNT}
    assert n_tests(evidence, truth(*range(60))) == 0
    assert judged(evidence, truth(*range(60))) == wanted_of([i for i in range(60) if i not in (7, *LEARNT)])
    assert Evidence(path, IDS).learnt_of(2) == {7, *LEARNT}


def test_a_label_changed_or_taken_back_counts_as_it_is_now(path):
    evidence, labels = begun(path), truth(*range(60))
    before = judged(evidence, labels)
    flipped = judged(evidence, {i: 1 - label for i, label in labels.items()})
    assert flipped.probability < before.probability
    assert (flipped.n_anomalies, flipped.n_normals) == (before.n_normals, before.n_anomalies)
    del labels[5]
    assert judged(evidence, labels).n_normals == before.n_normals - 1
    assert judged(evidence, labels | {5: 1}).n_anomalies == before.n_anomalies + 1
    assert len(lines(path)) == 1 + 60 + 56  # an image is asked once, however often it is labelled


# ---- fading ---------------------------------------------------------------------------------


def test_a_test_stays_that_of_its_cycle_and_counts_half_in_the_next(path):
    evidence, labels = begun(path), truth(*range(60))
    judged(evidence, labels)
    evidence.begin(2, labels, -DEEP)
    found = judged(evidence, labels | truth(*range(60, 100)))
    old = np.array([i for i in range(60) if i not in LEARNT])
    new = np.arange(60, 100)
    at = np.append(old, new)
    deep = np.append(normal_scores(DEEP, old), normal_scores(-DEEP, new))
    weights = np.append(np.full(len(old), 0.5), np.ones(len(new)))
    assert found == judge(normal_scores(INSTANT, at), deep, TRUTH[at], weights)
    assert found != judge(normal_scores(INSTANT, at), deep, TRUTH[at])


def test_tests_fade_by_the_newest_cycle_on_file_before_the_next_training(path):
    evidence, labels = begun(path), truth(*range(60))
    fresh = judged(evidence, labels)
    evidence.begin(3, labels, DEEP)
    faded = evidence.judgement(labels)
    assert faded.probability < fresh.probability
    assert Evidence(path, IDS).judgement(labels) == faded


def test_tests_of_a_cycle_that_was_lost_count_no_more_than_once(path):
    evidence, labels = begun(path, cycle=4), truth(*range(60))
    fresh = judged(evidence, labels)
    evidence.begin(2, labels, DEEP)
    assert evidence.judgement(labels) == fresh


# ---- the file -------------------------------------------------------------------------------


def test_the_file_holds_what_was_learnt_what_was_asked_and_each_test_once(path):
    evidence = begun(path)
    for _ in range(2):
        judged(evidence, truth(1, 3, 4, 5))
    learnt, *asked = lines(path)[:5]
    at = np.array([1, 3, 4, 5])
    assert learnt == {"cycle": 1, "learnt": [IDS[i] for i in LEARNT]}
    instant = normal_scores(INSTANT, at).tolist()
    assert asked == [{"id": IDS[i], "instant": z} for i, z in zip(at, instant, strict=True)]
    deep = normal_scores(DEEP, at[1:]).tolist()
    tests = [{"cycle": 1, "id": IDS[i], "deep": z} for i, z in zip(at[1:], deep, strict=True)]
    assert lines(path)[5:] == tests


def test_the_judgement_is_the_same_after_a_restart(path):
    labels = truth(*range(60))
    before = judged(begun(path), labels)
    size = path.stat().st_size
    again = Evidence(path, IDS)
    assert again.judgement(labels) == before
    assert again.learnt_of(1) == set(LEARNT)
    assert again.learnt_of(2) is None
    again.begin(1, None, DEEP)
    assert again.judgement(labels) == before
    assert path.stat().st_size == size


def test_before_the_next_training_no_more_labels_test_anything(path):
    judged(begun(path), truth(*range(40)))
    assert judged(Evidence(path, IDS), truth(*range(60))).n_normals == 28  # 30, 2 of which it learnt


def test_a_restart_goes_on_with_what_the_model_has_learnt(path):
    begun(path)
    again = Evidence(path, IDS)
    again.begin(1, None, DEEP)
    found = judged(again, truth(0, 1, 2, 8, 9))
    assert (found.n_anomalies, found.n_normals) == (0, 1)


def test_a_label_asked_before_the_kernel_was_killed_tests_the_next_model(path):
    Evidence(path, IDS).ask(truth(*range(60)), INSTANT, ())
    again = begun(path)
    assert again.judgement(truth(*range(60))) == wanted_of([i for i in range(60) if i not in LEARNT])


def test_a_cycle_done_again_with_other_labels_is_written_anew(path):
    evidence = begun(path)
    evidence.begin(1, LEARNT, DEEP)
    assert len(lines(path)) == 1
    evidence.begin(1, [7], DEEP)
    assert len(lines(path)) == 2
    assert Evidence(path, IDS).learnt_of(1) == {7, *LEARNT}


def test_ids_that_are_no_longer_in_the_source_are_left_out(path):
    judged(begun(path), truth(*range(60)))
    kept = IDS[1:50]
    again = Evidence(path, kept)
    assert again.learnt_of(1) == {0, 1, 7}
    labels = {i: int(TRUTH[i + 1]) for i in range(len(kept))}
    assert n_tests(again, labels) == 46  # 49 but the three it has learnt from


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
        '{"cycle": 1, "id": "image 5"}',
        '{"id": "image 5", "deep": 1}',
        '{"instant": 1}',
        '{"id": ["image 5"], "instant": 1}',
        '{"cycle": 1, "id": ["image 5"], "deep": 1}',
        '{"id": "image 5", "instant": NaN}',
        '{"id": "image 5", "instant": 40.1}',
        '{"cycle": 1, "id": "image 5", "deep": NaN}',
        '{"cycle": 1, "id": "image 5", "deep": -1e300}',
        f'{{"cycle": {10**30}, "id": "image 5", "deep": 1}}',
    ],
)
def test_a_line_that_cannot_be_read_is_skipped(path, caplog, junk):
    labels = truth(*range(60))
    before = judged(begun(path), labels)
    path.write_text(path.read_text("utf-8") + junk + "\n", "utf-8")
    again = Evidence(path, IDS)
    assert again.judgement(labels) == before
    assert again.learnt_of(1) == set(LEARNT)
    assert "cannot be read and is skipped" in caplog.text


def test_a_test_whose_instant_score_was_lost_is_left_out(path):
    judged(begun(path), truth(5, 6, 7))
    kept = [line for line in path.read_text("utf-8").splitlines() if '"image 6", "instant"' not in line]
    path.write_text("\n".join(kept) + "\n", "utf-8")
    assert n_tests(Evidence(path, IDS), truth(5, 6, 7)) == 2


@pytest.mark.parametrize("n_bytes", [1, 20])
def test_a_torn_last_line_costs_no_other_test(path, n_bytes):
    judged(begun(path), truth(5, 6, 7))
    path.write_bytes(path.read_bytes()[:-n_bytes])
    again = Evidence(path, IDS)
    assert n_tests(again, truth(5, 6, 7)) == (3 if n_bytes == 1 else 2)
    again.begin(1, None, DEEP)  # tests by what was asked, where the test was torn
    assert n_tests(again, truth(5, 6, 7)) == 3
    judged(again, truth(5, 6, 7, 9, 10))
    assert n_tests(Evidence(path, IDS), truth(5, 6, 7, 9, 10)) == 5


def test_a_full_disk_stops_nothing_and_costs_nothing_once_there_is_room(path, caplog, monkeypatch):
    labels = truth(*range(60))
    wanted = judged(begun(path), labels)
    path.unlink()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        evidence = begun(path)
        assert judged(evidence, labels) == wanted
    assert "evidence cannot be written" in caplog.text
    assert not path.exists()
    more = judged(evidence, labels | truth(60))
    assert Evidence(path, IDS).judgement(labels | truth(60)) == more


def test_a_file_that_cannot_be_read_is_told_in_the_log(path, caplog):
    path.mkdir()
    with caplog.at_level(logging.ERROR):
        assert math.isnan(Evidence(path, IDS).judgement(truth(*range(9))).probability)
    assert "evidence cannot be read" in caplog.text


def test_threads_that_ask_and_judge_at_once_ask_each_image_once(path):
    evidence, start = begun(path), threading.Barrier(4)

    def work():
        start.wait(10)
        for n in range(20, 100):
            judged(evidence, truth(*range(n)))
            if n == 50:
                evidence.begin(1, None, DEEP)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name, n in {"instant": 99, "deep": 95}.items():
        ids = [line["id"] for line in lines(path) if name in line]
        assert len(ids) == len(set(ids)) == n
