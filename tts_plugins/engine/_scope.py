"""What a call is made inside of: an account, a hold in it, a deadline. Carried by a context variable."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Role


@dataclass(frozen=True)
class Scope:
    """`hold` belongs to `ledger`; `deadline` is on the loop's monotonic clock; `event` is the trace's parent event."""

    ledger: Ledger
    hold: Hold | None
    deadline: float | None
    role: Role
    event: int | None


# Set inside a task or a Context.run, never across a yield: a generator's body runs in whoever's context asks.
SCOPE: ContextVar[Scope | None] = ContextVar("tts_plugins_scope", default=None)


def current_ledger() -> Ledger | None:
    """The account that pays for what runs here: that of the innermost solve, or None outside of any."""
    scope = SCOPE.get()
    return None if scope is None else scope.ledger
