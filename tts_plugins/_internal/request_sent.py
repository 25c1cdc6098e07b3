"""Whether a call's request has left this process: a call that ends before that costs nothing.

What the engine sets `CALL` to around each call knows it. A model that can tell calls `holding` before its first
request, and `leaving` as soon as bytes may reach a server. Every other model is assumed to send at once.
"""

from __future__ import annotations

from contextvars import ContextVar


class Departure:
    """Whether any request of one call of `model` has left.

    Attributes:
        waiting: the model tells when its first request leaves, and none has left yet.
    """

    __slots__ = ("_left", "_model", "waiting")

    def __init__(self, model: object) -> None:
        self._model = id(model)  # the context outlives the call (connections, timers); the model must not
        self._left = self.waiting = False

    def hold_back(self, model: object) -> None:
        """Note that nothing has left yet, if the call is this model's."""
        self.waiting = id(model) == self._model and not self._left

    def leave(self) -> None:
        """Note that a request has left."""
        self._left, self.waiting = True, False


# Set inside a task or a Context.run, never across a yield: a generator's body runs in the context of its caller.
CALL: ContextVar[Departure | None] = ContextVar("tts_plugins_call", default=None)


def holding(model: object) -> None:
    """Say that the call that runs here has sent nothing yet, and that `model` will tell when it does."""
    if (call := CALL.get()) is not None:
        call.hold_back(model)


def leaving() -> None:
    """Say that what follows may reach a server."""
    if (call := CALL.get()) is not None:
        call.leave()
