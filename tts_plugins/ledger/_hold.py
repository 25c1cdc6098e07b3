"""What is reserved in an account. The account itself is `tts_plugins.ledger`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tts_plugins.budget import Amount
from tts_plugins.types import Usage

if TYPE_CHECKING:
    from tts_plugins.ledger import Ledger

ZERO = Amount()
NOTHING = Usage()


class Hold:
    """A reserved amount, settled once. What is drawn inside it no longer counts as its own."""

    __slots__ = ("_paused", "amount", "inside", "ledger", "mirror", "open", "size", "units", "within")

    def __init__(self, ledger: Ledger, amount: Amount, within: Hold | None, mirror: Hold | None, units: int) -> None:
        self.ledger = ledger
        self.size = amount
        self.amount = amount
        self.within = within
        self.mirror = mirror
        self.units = units
        self.open = True
        self.inside: list[Usage] = []  # what was charged for what was drawn from it
        self._paused = 0

    def settle(self, usage: Usage, *, bounded: bool = True) -> Amount:
        """Charge what was really used and give back the rest.

        Args:
            bounded: whether the amount was the most that it can take; without `max_tokens` that is so of calls alone.

        Returns:
            What was used beyond the amount held: recorded as overshoot, zero where bounds are right.

        Raises:
            ValueError: the hold was settled or released before.
        """
        over = self.ledger._close(self, usage, bounded=bounded)
        if over is None:
            raise ValueError("a hold is settled once, and this one is closed already")
        return over

    def release(self) -> None:
        """Give back all that was not drawn; nothing happens where it is closed already."""
        self.ledger._close(self, NOTHING)

    def park(self, can_progress: Callable[[], bool]) -> None:
        """Say that its call waits for a place elsewhere; `can_progress` tells whether a place can come free."""
        self.ledger._park(self, can_progress)

    def unpark(self) -> None:
        """Say that its call goes on."""
        self.ledger._park(self, None)

    @property
    def blocked(self) -> bool:
        """Whether something inside it waits for room, here or in a limiter, so that it cannot end by itself."""
        return self._paused > 0

    def _mirrors(self) -> Iterator[Hold]:
        hold: Hold | None = self
        while hold is not None:
            yield hold
            hold = hold.mirror
