"""The records behind the curves: kept from one kernel to the next, and never in the way."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest

from amatch_widgets.learn.health import HealthMonitor
from amatch_widgets.learn.metrics import evaluate
from amatch_widgets.learn.records import StepRecord
from amatch_widgets.session.history import CycleRecord, History, utc_now


def step(number, cycle=1, loss=1.0):
    return StepRecord(
        step=number,
        cycle=cycle,
        loss=loss,
        supervised=0.75,
        unsupervised=0.25,
        share_above=0.5,
        n_anomaly=1,
        n_normal=3,
        seconds=0.1,
    )


def cycle(number, at_step):
    metrics = evaluate(np.array([True, False] * 4), np.linspace(0, 1, 8))
    return CycleRecord(
        cycle=number,
        step=at_step,
        metrics=metrics,
        n_anomalies=4,
        n_normals=4,
        train_s=1.5,
        score_s=0.5,
        time=utc_now(),
        alone=metrics,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


def numbers(history):
    return [record.step for record in history.steps]


def filled(path, n=4):
    history = History(path, last_step=0)
    for i in range(1, n + 1):
        history.add_step(step(i))
    return history


def test_records_come_back_as_they_were(path):
    history = filled(path)
    history.add_cycle(cycle(1, 4))
    again = History(path, last_step=4)
    assert again.steps == history.steps
    assert again.cycles == history.cycles
    assert repr(again) == "History(4 steps, 1 cycles)"


def test_metrics_that_say_too_few_come_back(path):
    history = filled(path)
    nothing = evaluate(np.array([], bool), np.array([]))
    history.add_cycle(
        CycleRecord(**{f: getattr(cycle(1, 4), f) for f in CycleRecord.__slots__} | {"metrics": nothing})
    )
    assert "too few to say" in repr(History(path, last_step=4).cycles[0].metrics.auroc)


def test_records_of_an_older_version_come_back_without_what_it_did_not_know(path):
    history = filled(path)
    history.add_cycle(cycle(1, 4))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("spread", "right", "sure_random", "meant"):
        del lines[0]["step"][name]
    del lines[-1]["cycle"]["alone"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = History(path, last_step=4)
    assert numbers(again) == [1, 2, 3, 4]
    assert (again.steps[0].spread, again.cycles[0].alone) == (None, None)
    assert again.cycles[0].metrics == history.cycles[0].metrics


def test_a_monitor_is_told_what_was_measured_in_order_and_says_it_to_nobody(path):
    history = filled(path)
    for number in range(1, 31):
        history.add_step(dataclasses.replace(step(number), spread=0.0))
    monitor = HealthMonitor()
    history.tell(monitor)
    assert monitor.step(dataclasses.replace(step(31), spread=0.0)) == []  # it was told at step 25
    (alarm,) = (
        alarm
        for number in range(32, 57)
        for alarm in monitor.step(dataclasses.replace(step(number, 2), spread=0.0))
    )
    assert alarm.kind == "constant_output"


def test_a_new_history_is_empty_and_writes_nothing(path):
    history = History(path, last_step=0)
    assert (history.steps, history.cycles) == ([], [])
    assert not path.exists()


def test_lists_are_snapshots(path):
    history = filled(path)
    history.steps.clear()
    history.cycles.append(None)
    assert len(history.steps) == 4
    assert history.cycles == []
    assert [r.step for r in history.steps_since(3)] == [4]


def test_steps_lost_with_a_killed_kernel_are_left_out(path):
    filled(path, 7)
    assert numbers(History(path, last_step=5)) == [1, 2, 3, 4, 5]


def test_a_cycle_whose_model_was_moved_away_is_left_out(path):
    history = filled(path)
    history.add_cycle(cycle(1, 4))
    history.add_step(step(5, 2))
    history.add_cycle(cycle(2, 5))
    assert [r.cycle for r in History(path, last_step=4).cycles] == [1]


def test_steps_done_again_replace_the_lost_ones_here_and_after_a_restart(path):
    history = filled(path, 4)
    history.add_step(step(3, loss=9.0))
    assert numbers(history) == [1, 2, 3]
    assert history.steps[-1].loss == 9.0
    assert History(path, last_step=3).steps == history.steps


@pytest.mark.parametrize(
    "junk", ["{", "", "null", "3", "[]", '{"step": {"step": 1}}', '{"cycle": {}}', '{"x": 1}']
)
def test_a_line_that_cannot_be_read_is_skipped(path, junk):
    filled(path, 2)
    with path.open("a") as file:
        file.write(junk + "\n")
    history = History(path, last_step=9)
    history.add_step(step(3))
    assert numbers(History(path, last_step=9)) == [1, 2, 3]


@pytest.mark.parametrize("n_bytes", [1, 20])
def test_a_torn_last_line_costs_no_other_record(path, n_bytes):
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:-n_bytes])
    history = History(path, last_step=9)
    wanted = [1, 2, 3] if n_bytes == 1 else [1, 2]
    assert numbers(history) == wanted
    history.add_step(step(4))
    history.add_step(step(5))
    assert numbers(History(path, last_step=9)) == [*wanted, 4, 5]


def test_a_full_disk_stops_no_training_and_is_told_in_the_log(path, caplog):
    history = filled(path, 1)
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.ERROR):
        history.add_step(step(2))
    assert numbers(history) == [1, 2]
    assert "history cannot be written" in caplog.text


def test_a_file_that_cannot_be_read_is_told_in_the_log(path, caplog):
    path.mkdir()
    with caplog.at_level(logging.ERROR):
        assert History(path, last_step=3).steps == []
    assert "history cannot be read" in caplog.text


def test_what_a_full_disk_kept_out_comes_later_and_a_cycle_written_twice_counts_once(path):
    history = filled(path, 2)
    history.add_cycle(cycle(1, 2))
    text = path.read_text()
    path.unlink()
    path.mkdir()
    history.add_step(step(3, 2))
    path.rmdir()
    path.write_text(text + text.splitlines()[-1] + "\n")  # a part of what came before, once more
    history.add_step(step(4, 2))
    again = History(path, last_step=4)
    assert again.steps == history.steps
    assert again.cycles == history.cycles
