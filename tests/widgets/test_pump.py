from __future__ import annotations

import gc
import queue
import threading

from amatch_widgets.events import EventHub, LabelsChanged, StepDone
from amatch_widgets.widgets.pump import Pump

WAIT_S = 20


class Target:
    def __init__(self, answers=()):
        self.calls = queue.Queue()
        self.answers = list(answers)

    def apply(self, events):
        self.calls.put((threading.current_thread().name, list(events)))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def step(k):
    return StepDone(step=k, done=k, total=99, steps_per_s=1.0, seconds_left=1.0)


def test_events_arrive_on_a_thread_of_its_own_and_progress_is_merged():
    hub, target = EventHub(), Target()
    pump = Pump(hub, target)
    for k in range(50):
        hub.publish(step(k))
    hub.publish(LabelsChanged(("a",)))
    seen = []
    while step(49) not in seen or LabelsChanged(("a",)) not in seen:
        name, events = target.calls.get(timeout=WAIT_S)
        assert name == "amatch-pump"
        seen += events
    assert len(seen) < 50
    pump.close()
    assert not pump.is_alive
    assert not hub._subscribers


def test_a_target_that_asks_for_it_is_called_again_without_events():
    hub, target = EventHub(), Target(answers=[0.01])
    pump = Pump(hub, target)
    hub.publish(step(1))
    assert target.calls.get(timeout=WAIT_S)[1] == [step(1)]
    assert target.calls.get(timeout=WAIT_S)[1] == []
    pump.close()


def test_a_target_that_raises_does_not_end_the_pump():
    hub, target = EventHub(), Target(answers=[RuntimeError("broken view")])
    pump = Pump(hub, target)
    hub.publish(step(1))
    target.calls.get(timeout=WAIT_S)
    hub.publish(step(2))
    assert target.calls.get(timeout=WAIT_S)[1] == [step(2)]
    pump.close()
    pump.close()


def test_a_target_nobody_holds_takes_its_pump_with_it():
    hub, target = EventHub(), Target()
    pump = Pump(hub, target)
    del target
    gc.collect()
    hub.publish(step(1))
    pump._thread.join(WAIT_S)
    assert not pump.is_alive
    assert not hub._subscribers
