"""Ending a run when the machine or the user asks for it: at a checkpoint, or soon."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What asks for an end waits about so long, and then kills.
PATIENCE = 4.0  # seconds


class Overdue(BaseException):
    """The end that a signal asked for was not reached in time: whatever runs is left where it is."""


class Stop:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = self.overdue = False
        self._timer: threading.Timer | None = None

    def noticed(self) -> bool:
        """Whether the end is asked for; writing a checkpoint then takes its time."""
        if self.asked:
            self.cancel()
        return self.asked

    def ask(self, number: int, patience: float | None) -> None:
        """Asks for the end; where `noticed` is not called for `patience` seconds the signal is sent again."""
        self.asked = True
        if patience is not None:
            self._timer = threading.Timer(patience, self._remind, [number])
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Ends the waiting."""
        if self._timer is not None:
            self._timer.cancel()

    def _remind(self, number: int) -> None:
        self.overdue = True
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, number)  # which ends a wait in the main thread


@contextmanager
def stop_on_signal(*, patience: float | None) -> Iterator[Stop]:
    """What SIGTERM or SIGINT sets; a second signal acts as it would without this.

    Outside of the main thread, where Python takes no signals, it stays unset.

    Args:
        patience: seconds until `Overdue` is raised in the block where nothing has noticed the first signal;
            None for never, where several processes must end together.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.overdue:
            raise Overdue
        if stop.asked:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        else:
            stop.ask(number, patience)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        stop.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
