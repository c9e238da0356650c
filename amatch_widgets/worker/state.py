"""What a worker may do next: a table without threads, so that each entry can be tested."""

from __future__ import annotations

from enum import StrEnum

from amatch_widgets.errors import StateError

__all__ = ["WHY_NOT", "Command", "State", "transition"]


class State(StrEnum):
    """What a worker is doing."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"  # idle, after a job that raised
    CLOSED = "closed"


class Command(StrEnum):
    """What can happen to a worker; the last two come from the job itself."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CLOSE = "close"
    FINISH = "finish"
    FAIL = "fail"


_TABLE: dict[tuple[State, Command], State] = {
    (State.IDLE, Command.START): State.RUNNING,
    (State.IDLE, Command.STOP): State.IDLE,
    (State.IDLE, Command.CLOSE): State.CLOSED,
    (State.RUNNING, Command.PAUSE): State.PAUSED,
    (State.RUNNING, Command.RESUME): State.RUNNING,
    (State.RUNNING, Command.STOP): State.RUNNING,  # until the job has ended, which finishes it
    (State.RUNNING, Command.CLOSE): State.CLOSED,
    (State.RUNNING, Command.FINISH): State.IDLE,
    (State.RUNNING, Command.FAIL): State.FAILED,
    (State.PAUSED, Command.PAUSE): State.PAUSED,
    (State.PAUSED, Command.RESUME): State.RUNNING,
    (State.PAUSED, Command.STOP): State.RUNNING,  # it has to run to its end
    (State.PAUSED, Command.CLOSE): State.CLOSED,
    (State.PAUSED, Command.FINISH): State.IDLE,  # paused behind its last item
    (State.PAUSED, Command.FAIL): State.FAILED,
    (State.FAILED, Command.START): State.RUNNING,
    (State.FAILED, Command.STOP): State.FAILED,
    (State.FAILED, Command.CLOSE): State.CLOSED,
    (State.CLOSED, Command.STOP): State.CLOSED,
    (State.CLOSED, Command.CLOSE): State.CLOSED,
    (State.CLOSED, Command.FINISH): State.CLOSED,  # a job that outlived the patience of close()
    (State.CLOSED, Command.FAIL): State.CLOSED,
}

WHY_NOT = {  # ends the sentence "Cannot start now: ..."
    State.IDLE: "nothing is running. Start a job first.",
    State.RUNNING: "a job is running already. Wait until it has ended, or stop it.",
    State.PAUSED: "a job is paused. Resume it, or stop it.",
    State.FAILED: "the last job failed and nothing is running. Start a job first.",
    State.CLOSED: "it is closed. Open the session again.",
}


def transition(state: State, command: Command | str) -> State:
    """Return the state that follows `state` after `command`.

    Parameters
    ----------
    state : State
        The state now.
    command : Command
        What happens.

    Returns
    -------
    State
        The next state; the same one where the command changes nothing.

    Raises
    ------
    StateError
        If the command makes no sense in this state.
    """
    try:
        return _TABLE[state, Command(command)]
    except KeyError:
        raise StateError(f"Cannot {Command(command)} now: {WHY_NOT[state]}") from None
