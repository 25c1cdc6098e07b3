"""Who waits for whom: room in accounts and places at servers, in one graph, woken by events.

The nodes
    A *resource* is something limited: the room of an account, the places at a server. A *holder* has a part of one: a
    reservation, a place. A *wait* wants a part of one resource, and stands inside of holders, its *enclosers*: what
    they are held for cannot end before the wait does. A call inside another call is inside its reservation and its
    place; so is a solve in a function of the user. A holder with a wait inside is *blocked*; else it *moves*: its call
    is in the hands of a server, of the user's code, or of the event loop, and ends without anybody's help.

Invariants (under the one lock, whenever `settle` has returned)
    1. `resource.holders` counts its open holders, and `resource.moving` those of them that are not blocked.
    2. A wait stands in the queue of exactly one resource, in order of arrival, and the first of each queue cannot be
       served.
    3. Of no resource that is waited for are all holders *dead*. The dead holders are those that rest (see `rest`), and
       those with a wait inside that belongs to the largest set of waits of which each one wants a resource whose
       holders are all dead.

Why nothing waits for ever
    By 3, each wait wants a resource with a holder that is not dead. That one moves, and will end; or all the waits
    inside it want resources with holders that are not dead, and so on; since the dead set is the largest one, each
    such chain leads to a holder that moves. When it ends, it gives its part back, and `settle` serves the queue of its
    resource in order of arrival, or finds that the wait can never be served and refuses it. Every wait that is served
    or refused unblocks its enclosers. So as long as anything waits, something moves, and each end of what moves
    shortens a queue or brings the first wait closer to its turn; the parts that are given back are finite.

    An event can break 3 only by blocking or resting the last holder of a resource that could end, by closing it, or by
    a wait for a resource without one that moves: these mark the resource as suspect. `settle` looks at suspects alone,
    and restores 3 by ending one wait at a time, so that what it sets free can move first:

    - a wait that could be served but for its turn passes the others, since its enclosers then end and make room;
    - else a wait for a place gets one more than there are, since those who have one are idle until it ends;
    - else the first wait for room in an account is refused.

What is not known here: code of the user may itself wait for a thread that asks for room. That thread's wait then has
enclosers that nobody has named; `_calls.unknown_waits` finds them out and adds them by `enclose`.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter

from tts_plugins._concurrency import forks

__all__ = ["GRAPH", "Holder", "Resource", "Wait", "WaitGraph"]

_number = attrgetter("number")
_numbers = itertools.count()


class Resource:
    """What is waited for."""

    extensible = False  # whether one part more than there are may be given where all holders are idle

    def __init__(self) -> None:
        self.holders = 0
        self.moving = 0
        self.waits: Sequence[Wait] = ()

    def serve(self) -> None:
        """Answer the waits that can be answered, in order of arrival."""
        raise NotImplementedError

    def wanted(self) -> None:
        """Hear that a wait stands here now, such as to have more brought from elsewhere."""

    def let_pass(self, wait: Wait) -> bool:
        """Serve the wait before its turn where there is room for it; return whether there was."""
        return False

    def give_up(self, wait: Wait) -> None:
        """End a wait that nothing else can end."""
        raise NotImplementedError


class Holder:
    """Who has a part of a resource."""

    __slots__ = ("blocked", "open", "resource")

    blocked: int
    open: bool
    resource: Resource


class Wait:
    """A wait for a part of a resource. `ready` is called once, on any thread, with the answer."""

    __slots__ = ("answer", "at", "enclosers", "number", "ready")

    def __init__(self, ready: Callable[[object], None], enclosers: Iterable[Holder]) -> None:
        self.number = next(_numbers)
        self.at: Resource | None = None  # in whose queue it is; None before and after
        self.answer: object = None  # which may not have been delivered yet
        self.enclosers: Sequence[Holder] = tuple(dict.fromkeys(enclosers))
        self.ready = ready

    def ended(self) -> None:
        """Hear that it has left its queue."""

    def cancel(self) -> bool:
        """Wait no longer; return False where it was answered already."""
        with GRAPH.lock:
            if self.at is None:
                return False
            GRAPH.end(self)
            answers = GRAPH.settle()
        deliver(answers)
        return True


Answers = Sequence[tuple[Wait, object]]


class WaitGraph:
    """The graph. All of its methods but the constructor run under its lock."""

    def __init__(self) -> None:
        self.lock = forks.lock()
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child, where no other thread waits."""
        self.changes = 0  # how often something was given or given back
        self.nested: dict[Wait, None] = {}  # the waits that have enclosers
        self.outer: dict[Wait, None] = {}  # the others
        self._resting: dict[object, tuple[Holder, ...]] = {}
        self._changed: dict[Resource, None] = {}  # whose queue may have to be served
        self._suspects: dict[Resource, None] = {}  # that have no moving holder, and may have dead ones only
        self._answers: list[tuple[Wait, object]] = []

    def opened(self, holder: Holder) -> None:
        """Count a holder that has just got its part."""
        resource = holder.resource
        resource.holders += 1
        if not holder.blocked:
            resource.moving += 1

    def closed(self, holder: Holder) -> None:
        """Count a holder that gives its part back, as far as it still has it."""
        if self._resting:
            self.stir(holder)
        holder.open = False
        resource = holder.resource
        resource.holders -= 1
        if not holder.blocked:
            resource.moving -= 1
        self.changes += 1
        if resource.waits:
            self._changed[resource] = None
            if not resource.moving:
                self._suspects[resource] = None

    def begin(self, wait: Wait, at: Resource) -> None:
        """Queue the wait at a resource."""
        self._queue(wait, at)
        (self.nested if wait.enclosers else self.outer)[wait] = None
        self._block(wait.enclosers, 1)
        at.wanted()
        if not at.moving:
            self._suspects[at] = None

    def move(self, wait: Wait, to: Resource) -> None:
        """Queue the wait at another resource, by the order of its arrival."""
        self._unqueue(wait)
        self._queue(wait, to)
        to.wanted()
        if not to.moving:
            self._suspects[to] = None

    def grown(self, resource: Resource) -> None:
        """Have a queue looked at again: there is more, or it is known that there will not be."""
        if resource.waits:
            self._changed[resource] = None

    def end(self, wait: Wait) -> None:
        """Take the wait out of its queue."""
        self._unqueue(wait)
        wait.at = None
        (self.nested if wait.enclosers else self.outer).pop(wait)
        self._block(wait.enclosers, -1)
        wait.ended()

    def answer(self, wait: Wait, answer: object) -> None:
        """End the wait, if it is in a queue, and deliver its answer once the lock is free."""
        if wait.at is not None:
            self.end(wait)
        self.changes += 1
        wait.answer = answer
        self._answers.append((wait, answer))

    def enclose(self, wait: Wait, enclosers: Iterable[Holder]) -> None:
        """Add enclosers that have become known."""
        new = [h for h in dict.fromkeys(enclosers) if h not in wait.enclosers]
        if wait.at is None or not new:
            return
        self.outer.pop(wait, None)
        self.nested[wait] = None
        wait.enclosers = (*wait.enclosers, *new)
        self._block(new, 1)
        if not wait.at.moving:
            self._suspects[wait.at] = None

    def rest(self, key: object, enclosers: Iterable[Holder]) -> None:
        """Count holders as dead until `stir` gets the same key: they are kept for later, and end no call."""
        if key not in self._resting:
            self._resting[key] = tuple(dict.fromkeys(enclosers))
            self._block(self._resting[key], 1)
            for each in self._resting[key]:  # one that was blocked by a wait that can end may be dead now
                if each.open and each.resource.waits and not each.resource.moving:
                    self._suspects[each.resource] = None

    def stir(self, key: object) -> None:
        """Count the holders as ones that move again, unless they rest for another reason."""
        if (enclosers := self._resting.pop(key, None)) is not None:
            self._block(enclosers, -1)

    def settle(self) -> Answers:
        """Serve what can be served, and end what nothing else can end; return the answers to `deliver`."""
        if not self._changed and not self._suspects:
            if not self._answers:
                return ()
        else:
            while True:
                while self._changed:
                    self._changed.popitem()[0].serve()
                if not self._suspects:
                    break
                self._relieve()
        answers, self._answers = self._answers, []
        return answers

    def dead(self, assumed: Collection[Holder] = ()) -> tuple[list[Wait], Counter[Resource]]:
        """Return the largest set of nested waits that only each other could end, and the dead holders by resource.

        Args:
            assumed: holders that are taken to be dead, besides those that rest.
        """
        waits = list(self.nested)
        resting = {h for each in self._resting.values() for h in each} | set(assumed)
        while True:
            holders = resting.union(*(wait.enclosers for wait in waits))
            count = Counter(h.resource for h in holders if h.open)
            left = [w for w in waits if w.at is not None and count[w.at] >= w.at.holders]
            if len(left) == len(waits):
                return left, count
            waits = left

    def _relieve(self) -> None:
        """End one wait where all holders of a suspect are dead; else drop the suspicion."""
        suspects = [r for r in self._suspects if r.waits and not r.moving]
        self._suspects.clear()
        if not suspects:
            return
        stuck, count = self.dead()
        resources = [r for r in {w.at: None for w in stuck} | dict.fromkeys(suspects) if r is not None]
        resources = [r for r in resources if r.waits and count[r] >= r.holders]
        if not resources:
            return
        self._suspects.update(dict.fromkeys(resources))  # there may be more than one
        self.end_one(stuck, resources)

    def end_one(self, stuck: Iterable[Wait], resources: Sequence[Resource]) -> None:
        """End one of the waits for these resources, whose holders are all dead; `stuck` are the nested ones of them."""
        nested = sorted(stuck, key=_number)
        if any(w.at is not None and w.at.let_pass(w) for w in nested):
            return
        for wait in reversed(nested):
            if wait.at is not None and wait.at.extensible:
                return wait.at.give_up(wait)
        # A place more for somebody who is inside of nothing would set nobody free: accounts first.
        resource = min(resources, key=lambda r: (r.extensible, r.waits[0].number))
        resource.give_up(resource.waits[0])

    def _queue(self, wait: Wait, at: Resource) -> None:
        wait.at = at
        if not isinstance(at.waits, list):  # most resources are never waited for, and have no list either
            at.waits = []
        bisect.insort(at.waits, wait, key=_number)

    def _unqueue(self, wait: Wait) -> None:
        resource = wait.at
        assert resource is not None and isinstance(resource.waits, list)
        index = bisect.bisect_left(resource.waits, wait.number, key=_number)
        del resource.waits[index]
        if not index and resource.waits:
            self._changed[resource] = None

    def _block(self, holders: Iterable[Holder], by: int) -> None:
        for holder in holders:
            was = holder.blocked
            holder.blocked = was + by
            if holder.open and (not was or not holder.blocked):
                resource = holder.resource
                resource.moving += -1 if holder.blocked else 1
                if not resource.moving and resource.waits:
                    self._suspects[resource] = None


def deliver(answers: Answers) -> None:
    """Tell the answers. Outside the lock: `ready` wakes another loop or thread, which may come straight back.

    Who waits no longer gives back what it got, which answers the next one. Those are told here one after the other,
    however many waits were cancelled at once, and not one inside the other.
    """
    if not answers:
        return
    todo: deque[tuple[Wait, object]] | None = getattr(_telling, "todo", None)
    if todo is not None:
        todo.extend(answers)
        return
    _telling.todo = todo = deque(answers)
    failed: Exception | None = None
    try:
        while todo:
            wait, answer = todo.popleft()
            try:
                wait.ready(answer)
            except Exception as error:  # noqa: BLE001 - raised below; the others have to hear their answers all the same
                failed = failed or error
                release = getattr(answer, "release", None)
                if release is not None:
                    release()
    finally:
        _telling.todo = None
        deliver(tuple(todo))  # after an interrupt; and what a finalizer gave back in the very moment that this ended
    if failed is not None:
        raise failed


_telling = threading.local()
GRAPH = WaitGraph()
forks.on_fork(GRAPH.renew)
