"""Whether a solve is to start nothing more, and why."""

from __future__ import annotations

from typing import Literal

from tts_plugins.errors import DeadlineExceeded, SolveCancelled

Halt = Literal["deadline", "cancelled"]


class End:
    """Whether one solve has ended or is to end, for all that make its calls.

    It refers to no task: objects that refer to each other are freed late, and a model's connections with them.
    """

    __slots__ = ("closed", "halted")

    def __init__(self) -> None:
        self.halted: Halt | None = None
        self.closed = False

    def check(self) -> None:
        """Raise if the time is up, or the solve is over."""
        if self.halted == "deadline":
            raise DeadlineExceeded("the deadline has passed; give more seconds, or ask for less")
        if self.halted == "cancelled" or self.closed:
            raise SolveCancelled("the solve has ended; nothing more is sent for it")
