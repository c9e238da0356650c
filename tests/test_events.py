from __future__ import annotations

import dataclasses
import logging
import threading

import pytest

from amatch_widgets import events
from amatch_widgets.events import EventHub, LabelsChanged, Mailbox, Message, ScoringProgress, StepDone

_PATIENCE_S = 20


def _step(n):
    return StepDone(step=n, done=n, total=10, steps_per_s=2.0, seconds_left=5.0)


def _progress(n):
    return ScoringProgress(done=n, total=10, images_per_s=100.0, seconds_left=1.0)


def _message(n):
    return Message("info", f"message {n}")


@pytest.mark.parametrize("name", [n for n in events.__all__ if n not in {"EventHub", "Mailbox"}])
def test_every_event_is_frozen(name):
    cls = getattr(events, name)
    assert issubclass(cls, events.Event)
    assert cls.__dataclass_params__.frozen


def test_an_event_cannot_be_changed_by_a_reader():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _step(1).done = 5


def test_every_subscriber_gets_every_event_in_order():
    hub, one, two = EventHub(), [], []
    hub.subscribe(one.append)
    hub.subscribe(two.append)
    for n in range(3):
        hub.publish(_message(n))
    assert one == two == [_message(0), _message(1), _message(2)]


def test_an_ended_subscription_gets_nothing_and_ending_it_twice_does_no_harm():
    hub, gone, stays = EventHub(), [], []
    end = hub.subscribe(gone.append)
    hub.subscribe(stays.append)
    end()
    end()
    hub.publish(_message(0))
    assert gone == []
    assert stays == [_message(0)]


def test_a_broken_subscriber_is_logged_and_the_others_get_the_event(caplog):
    hub, got = EventHub(), []

    def broken(event):
        raise RuntimeError("the view is gone")

    hub.subscribe(broken)
    hub.subscribe(got.append)
    with caplog.at_level(logging.ERROR):
        hub.publish(_message(0))
    assert got == [_message(0)]
    assert "the view is gone" in caplog.text


def test_a_subscriber_may_unsubscribe_while_it_is_called():
    hub, got = EventHub(), []

    def once(event):
        got.append(event)
        end()

    end = hub.subscribe(once)
    hub.publish(_message(0))
    hub.publish(_message(1))
    assert got == [_message(0)]


def test_subscribing_from_many_threads_loses_none():
    hub, got = EventHub(), []
    threads = [
        threading.Thread(target=hub.subscribe, args=(lambda event, n=n: got.append(n),)) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    hub.publish(_message(0))
    assert sorted(got) == list(range(16))


def test_a_mailbox_keeps_the_latest_progress_only():
    mailbox = Mailbox()
    for n in range(5):
        mailbox.post(_step(n))
        mailbox.post(_progress(n))
    assert mailbox.drain() == [_step(4), _progress(4)]


def test_a_mailbox_keeps_all_other_events_in_order():
    mailbox = Mailbox()
    posted = [_message(0), _step(1), LabelsChanged(("a",)), _step(2), _message(1)]
    for event in posted:
        mailbox.post(event)
    assert mailbox.drain() == [_message(0), LabelsChanged(("a",)), _message(1), _step(2)]


def test_a_drained_mailbox_is_empty():
    mailbox = Mailbox()
    mailbox.post(_step(1))
    mailbox.drain()
    assert mailbox.drain() == []
    assert not mailbox.wait(timeout_s=0)


def test_waiting_returns_at_once_if_there_is_something():
    mailbox = Mailbox()
    mailbox.post(_message(0))
    assert mailbox.wait(timeout_s=0)


def test_waiting_ends_when_another_thread_posts():
    mailbox, woke = Mailbox(), []
    reader = threading.Thread(target=lambda: woke.append(mailbox.wait(_PATIENCE_S)))
    reader.start()
    mailbox.post(_step(1))
    reader.join(_PATIENCE_S)
    assert woke == [True]


def test_a_mailbox_fed_by_many_threads_loses_no_event():
    mailbox, hub = Mailbox(), EventHub()
    hub.subscribe(mailbox.post)

    def feed(start):
        for n in range(start, start + 50):
            hub.publish(_message(n))
            hub.publish(_step(n))

    threads = [threading.Thread(target=feed, args=(50 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    drained = mailbox.drain()
    texts = [event.text for event in drained if isinstance(event, Message)]
    assert sorted(texts) == sorted(f"message {n}" for n in range(200))
    assert sum(isinstance(event, StepDone) for event in drained) == 1
