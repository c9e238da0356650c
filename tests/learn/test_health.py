"""What a training's health says, when, and how often."""

from __future__ import annotations

import pytest

from amatch_widgets.learn.health import HealthMonitor
from amatch_widgets.learn.metrics import Estimate
from amatch_widgets.learn.records import StepRecord

HEALTHY = {
    "cycle": 1,
    "loss": 0.4,
    "supervised": 0.4,
    "unsupervised": 0.0,
    "share_above": 0.1,
    "n_anomaly": 2,
    "n_normal": 6,
    "seconds": 0.2,
    "spread": 0.5,
    "right": 1.0,
    "sure_random": 0.1,
}
DYING = {"share_above": 0.6, "n_anomaly": 0, "right": 0.1}


def record(step, **changes):
    return StepRecord(**{**HEALTHY, "step": step, **changes})


def kinds(monitor, records):
    """Give (step, kind) of every alarm."""
    return [(r.step, alarm.kind) for r in records for alarm in monitor.step(r)]


def run(n, first=2, **changes):
    return [record(step, **changes) for step in range(first, first + n)]


def estimate(value, low=None):
    low = value - 0.05 if low is None and value is not None else low
    return Estimate(value, low, value and min(1, value + 0.05), 10, 50, "" if value else "too few")


def test_a_healthy_training_says_nothing():
    assert kinds(HealthMonitor(), run(200, 1, distance=0.01)) == []


@pytest.mark.parametrize(
    ("share", "meant", "alarms"),
    [
        (0.95, 0.0, []),
        (0.96, 0.0, [(1, "head_trap")]),
        (1.0, 0.69, [(1, "head_trap")]),
        (1.0, 0.7, []),  # the start is sure of as many
        (1.0, None, []),  # no step that begins from a start
        (None, 0.0, []),  # not known
    ],
)
def test_nearly_all_random_images_sure_at_a_start_is_the_trap_of_the_head(share, meant, alarms):
    assert kinds(HealthMonitor(), [record(1, sure_random=share, meant=meant)]) == alarms


def test_a_later_cycle_that_begins_from_a_start_can_fall_into_the_trap_too():
    records = [record(1), record(2), *(record(s, cycle=2, sure_random=1.0, meant=0.1) for s in (3, 4))]
    assert kinds(HealthMonitor(), records) == [(3, "head_trap")]


@pytest.mark.parametrize(("name", "missing"), [("anomaly", "n_anomaly"), ("normal", "n_normal")])
def test_a_class_that_dies_out_is_named_after_25_steps_and_once(name, missing):
    monitor = HealthMonitor()
    dying = run(80, share_above=0.6, right=0.1, **{missing: 0})
    said = [(r.step, alarm) for r in dying for alarm in monitor.step(r)]
    assert [(step, alarm.kind) for step, alarm in said] == [(26, "one_class")]
    assert f"no image got the pseudo-label '{name}', while 60%" in said[0][1].text
    assert f"label more images of the class '{name}'" in said[0][1].advice


@pytest.mark.parametrize(
    "records",
    [
        run(24, **DYING),
        run(40, share_above=0.9, n_anomaly=0, right=0.5),  # those that have a label are found
        run(40, share_above=0.9, n_anomaly=0, right=None),  # not known
        run(40, share_above=0.5, n_anomaly=0, right=0.1),  # few are sure at all: nothing is confirmed yet
        [*run(24, **DYING), record(26, share_above=0.6), *run(24, 27, **DYING)],
        run(24, **DYING) + run(24, 26, share_above=0.6, n_normal=0, right=0.1),
    ],
    ids=["too short", "found", "not known", "few sure", "interrupted", "taking turns"],
)
def test_a_class_that_is_only_rare_is_not_dead(records):
    assert kinds(HealthMonitor(), records) == []


def test_an_interruption_of_the_cycle_begins_the_count_anew():
    records = run(24, **DYING) + run(24, 26, cycle=2, **DYING)
    assert kinds(HealthMonitor(), records) == []


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_one_score_for_all_labelled_images_is_a_constant_output_whatever_the_loss(spread):
    assert kinds(HealthMonitor(), run(60, spread=spread)) == [(26, "constant_output")]


@pytest.mark.parametrize("spread", [0.021, 3.0, None])
def test_scores_that_differ_are_not(spread):
    assert kinds(HealthMonitor(), run(60, spread=spread)) == []


@pytest.mark.parametrize(
    ("distance", "alarms"),
    [(None, []), (0.05, []), (0.051, [(2, "models_apart")]), (5.0, [(2, "models_apart")])],
)
def test_models_that_are_far_apart_are_told(distance, alarms):
    assert kinds(HealthMonitor(), run(3, distance=distance)) == alarms


def test_each_cause_is_told_again_in_another_cycle_and_apart_from_others():
    monitor = HealthMonitor()
    bad = {"distance": 0.5, "spread": 0.0}
    assert kinds(monitor, run(30, **bad)) == [(2, "models_apart"), (26, "constant_output")]
    assert kinds(monitor, run(30, 32, cycle=2, **bad)) == [(32, "models_apart"), (56, "constant_output")]


def cycles(monitor, *pairs):
    """Give the kinds that each (loss, held-out metric) brings."""
    found = []
    for cycle, (loss, held_out) in enumerate(pairs, start=1):
        kinds(monitor, run(5, 5 * cycle, cycle=cycle, loss=loss))
        found.append([alarm.kind for alarm in monitor.cycle(held_out)])
    return found


def test_worse_on_held_out_labels_while_the_loss_falls_is_overfitting():
    pairs = [(0.5, estimate(0.9)), (0.3, estimate(0.8)), (0.2, estimate(0.7))]
    assert cycles(HealthMonitor(), *pairs) == [[], ["overfitting"], ["overfitting"]]


@pytest.mark.parametrize(
    "second",
    [
        (0.3, estimate(0.86)),  # within the interval of the first
        (0.3, estimate(0.95)),
        (0.6, estimate(0.7)),  # the loss rose, too
        (0.3, estimate(None)),
    ],
    ids=["by chance", "better", "both worse", "unknown"],
)
def test_anything_else_is_not(second):
    assert cycles(HealthMonitor(), (0.5, estimate(0.9)), second) == [[], []]


def test_a_cycle_without_held_out_labels_is_passed_over():
    pairs = [(0.5, estimate(0.9)), (0.4, estimate(None)), (0.3, estimate(0.8))]
    assert cycles(HealthMonitor(), *pairs) == [[], [], ["overfitting"]]


def test_a_cycle_without_steps_says_nothing():
    assert HealthMonitor().cycle(estimate(0.9)) == []
