"""What a call is made inside of: a solve that may have ended, and an account, a hold in it, a deadline.

All but the first is carried by a context variable.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, ParamSpec, TypeVar, cast

from tts_plugins._calls.places import Place
from tts_plugins._concurrency import forks
from tts_plugins._internal.request_sent import CALL, Departure
from tts_plugins.errors import DeadlineExceeded, SolveCancelled
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Role

P = ParamSpec("P")
T = TypeVar("T")
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


class Scope(Departure):
    """What a call is made inside of. One context variable has it all, since each of them costs a task its own nodes.

    `hold` belongs to `ledger`; `deadline` is on the loop's monotonic clock; `event` is the trace's parent event.

    What runs inside, requests and solves, takes the next seed that follows from `seed` and `path`, in the order of its
    own calls, so that none depends on which candidate arrives first. `model` is who is called, where this
    is one call; `place` is the innermost one at a server that this is inside of, and `meter` that of the innermost
    metered work. `metering` says that such work runs in this very scope.
    """

    __slots__ = ("_taken", "deadline", "event", "hold", "ledger", "meter", "metering", "path", "place",
                 "role", "seed")  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        hold: Hold | None,
        deadline: float | None,
        role: Role,
        event: int | None,
        seed: int,
        path: tuple[object, ...],
        model: object = None,
    ) -> None:
        self._model, self._left, self.waiting = id(model), False, False  # as `Departure`, a call the less
        self.ledger, self.hold, self.deadline = ledger, hold, deadline
        self.role, self.event, self.seed, self.path = role, event, seed, path
        outer = SCOPE.get()
        self.place: Place | None = None if outer is None else outer.place
        self.meter: Any = None if outer is None else outer.meter
        self.metering = False
        self._taken = 0

    def next_seed(self) -> int:
        """Return the next seed; several threads may take one."""
        with _numbers:
            number, self._taken = self._taken, self._taken + 1
        return derive(self.seed, *self.path, number)

    def paying(self, hold: Hold | None) -> Scope:
        """Return the same for work that goes on from here and pays from another hold."""
        other = Scope(self.ledger, hold, self.deadline, self.role, self.event, self.seed, self.path)
        other._taken = self._taken
        return other

    def leave_for(self, outer: Scope | None) -> None:
        """Go back to what was there before this; nothing happens where this is not, such as in a task that closes the
        coroutine of another one.
        """
        if SCOPE.get() is self:
            SCOPE.set(outer)


_numbers = forks.lock()
# The engine sets it, and to nothing else.
SCOPE = cast("ContextVar[Scope | None]", CALL)


def current_ledger() -> Ledger | None:
    """Return the account that pays for what runs here: that of the innermost solve, or None outside of any."""
    scope = SCOPE.get()
    return None if scope is None else scope.ledger


def current_hold() -> Hold | None:
    """Return what the call that runs here has reserved; None outside of any."""
    scope = SCOPE.get()
    return None if scope is None else scope.hold


def carry_account(function: Callable[P, T]) -> Callable[P, T]:
    """Bind a function to the account, deadline and seeds of the solve that runs here, for threads of your own.

    Threads and executors start without context variables, so a solve there would pay for itself. Bound, it is a part
    of the call around it: `executor.submit(carry_account(work), item)`, `threading.Thread(target=carry_account(work))`.
    It carries all context variables, and may be called several times and at once.
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def carried(*args: P.args, **keywords: P.kwargs) -> T:
        return context.copy().run(function, *args, **keywords)

    return carried


def derive(seed: int, *path: object) -> int:
    """Return a seed of 31 bits that depends on the seed and the path, and on nothing else."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def derived(seed: int, *path: object) -> Callable[[int], int]:
    """Return `derive(seed, *path, number)` as a function of the number; the shared part is hashed once."""
    common = hashlib.blake2b("/".join(map(str, (seed, *path, ""))).encode(), digest_size=4)

    def of(number: int) -> int:
        own = common.copy()
        own.update(b"%d" % number)
        return int.from_bytes(own.digest(), "big") >> 1

    return of


def seeds_of(seed: int, *path: object) -> Iterator[int]:
    """Yield the seeds that follow from a seed and a path: `derive(seed, *path, 0)`, and so on."""
    return (derive(seed, *path, number) for number in itertools.count())
