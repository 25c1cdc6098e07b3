"""Whether a call's request has left this process: what is cancelled before that costs nothing.

The engine says whose call it is; a model that can tell waits with it, and says when the request goes out. Of any other
model it is taken to be out from the start.
"""

from __future__ import annotations

from contextvars import ContextVar, Token


class Departure:
    """Of one call of `model`, once for all of its requests.

    Attributes:
        waiting: the model tells when its first request leaves, and none has left yet.
    """

    def __init__(self, model: object) -> None:
        self._model = id(model)  # connections and timers keep the context that they were begun in, and not the model
        self._left = self.waiting = False

    def __enter__(self) -> Departure:
        self._token: Token[Departure | None] = _CALL.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _CALL.reset(self._token)

    def hold(self, model: object) -> None:
        """It waits, where it is this model's and nothing has left."""
        self.waiting = id(model) == self._model and not self._left

    def leave(self) -> None:
        """It is out."""
        self._left, self.waiting = True, False


# Set inside a task, never across a yield.
_CALL: ContextVar[Departure | None] = ContextVar("tts_plugins_call", default=None)


def holding(model: object) -> None:
    """The call that runs here has sent nothing yet, and `model` tells when it does."""
    if (call := _CALL.get()) is not None:
        call.hold(model)


def leaving() -> None:
    """What follows may reach a server."""
    if (call := _CALL.get()) is not None:
        call.leave()
