"""Whether a call's request has left this process: a call that ends before that costs nothing.

The engine opens a `Departure` around each call. A model that knows calls `holding` before its first request, and
`leaving` as soon as bytes may reach a server. Every other model is assumed to send at once.
"""

from __future__ import annotations

from contextvars import ContextVar, Token


class Departure:
    """Whether any request of one call of `model` has left.

    Attributes:
        waiting: the model tells when its first request leaves, and none has left yet.
    """

    def __init__(self, model: object) -> None:
        self._model = id(model)  # the context outlives the call (connections, timers); the model must not
        self._left = self.waiting = False

    def __enter__(self) -> Departure:
        self._token: Token[Departure | None] = _CALL.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _CALL.reset(self._token)

    def hold(self, model: object) -> None:
        """Note that nothing has left yet, if the call is this model's."""
        self.waiting = id(model) == self._model and not self._left

    def leave(self) -> None:
        """Note that a request has left."""
        self._left, self.waiting = True, False


# Set inside a task, never across a yield.
_CALL: ContextVar[Departure | None] = ContextVar("tts_plugins_call", default=None)


def holding(model: object) -> None:
    """Say that the call that runs here has sent nothing yet, and that `model` will tell when it does."""
    if (call := _CALL.get()) is not None:
        call.hold(model)


def leaving() -> None:
    """Say that what follows may reach a server."""
    if (call := _CALL.get()) is not None:
        call.leave()
