"""What the loopback server has seen: the counts, and the requests themselves."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One request as it came. `at` is `time.monotonic()` at its arrival, comparable with the client's clock."""

    number: int
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A snapshot. Requests are POSTs to a generation endpoint or /v1/embeddings; /v1/models and the like do not count.

    choices, prompt_tokens and completion_tokens are what answered requests truly cost, whatever usage was reported;
    the aborted_* are what requests cost whose client went away after generation had begun: all of it, since a
    server may not notice. `connections` are the sockets open now.
    """

    requests: int = 0
    choices: int = 0
    active: int = 0
    peak: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    aborted: int = 0
    aborted_choices: int = 0
    aborted_prompt_tokens: int = 0
    aborted_completion_tokens: int = 0
    faults: int = 0
    connections: int = 0
    by_path: Mapping[str, int] = field(default_factory=dict)
    by_fault: Mapping[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Every token charged, aborted requests included: what an honest bill would say."""
        return self.prompt_tokens + self.completion_tokens + self.aborted_prompt_tokens + self.aborted_completion_tokens


@dataclass(eq=False)
class Ticket:
    """One request's place in the account. `settled`: it is charged, or known to cost nothing."""

    number: int
    path: str
    at: float
    epoch: int
    choices: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    settled: bool = False
    over: bool = False


class Meter:
    """The account: written by the server's thread, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._active = 0
        self.reset()

    def reset(self) -> None:
        """Set everything to zero; requests still in flight stay active, but are charged to nobody."""
        with self._lock:
            self._epoch += 1
            self._sums: Counter[str] = Counter()
            self._peak = self._active
            self._paths: Counter[str] = Counter()
            self._faults: Counter[str] = Counter()
            self._requests: list[Recorded] = []
            self._numbered = 0
            self._indexed = 0

    def begin(self, path: str) -> Ticket:
        """Register a request that arrived."""
        with self._lock:
            ticket = Ticket(number=self._numbered, path=path, at=time.monotonic(), epoch=self._epoch)
            self._numbered += 1
            self._active += 1
            self._paths[path] += 1
            self._peak = max(self._peak, self._active)
        return ticket

    def record(self, ticket: Ticket, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Keep the request."""
        kept = Recorded(number=ticket.number, path=ticket.path, body=body, headers=headers, at=ticket.at)
        with self._lock:
            if ticket.epoch == self._epoch:
                self._requests.append(kept)

    def indices(self, count: int) -> range:
        """Return the next `count` numbers for choices without a seed."""
        with self._lock:
            first, self._indexed = self._indexed, self._indexed + count
        return range(first, first + count)

    def fault(self, ticket: Ticket, kind: str) -> None:
        """Note that the request met a fault."""
        with self._lock:
            if ticket.epoch == self._epoch:
                self._faults[kind] += 1

    def charge(self, ticket: Ticket) -> None:
        """Charge what the ticket says, once only; call this before the last byte, so that counts never lag."""
        with self._lock:
            if ticket.settled or ticket.epoch != self._epoch:
                return
            ticket.settled = True
            self._add(ticket, "")

    def abort(self, ticket: Ticket) -> None:
        """Note that the client went away, and charge as aborted what is not charged yet."""
        with self._lock:
            if ticket.over or ticket.epoch != self._epoch:
                return
            ticket.over = True
            self._sums["aborted"] += 1
            if not ticket.settled:
                ticket.settled = True
                self._add(ticket, "aborted_")

    def _add(self, ticket: Ticket, prefix: str) -> None:
        for name in ("choices", "prompt_tokens", "completion_tokens"):
            self._sums[prefix + name] += getattr(ticket, name)

    def end(self, ticket: Ticket) -> None:
        """Note that the request is no longer in flight."""
        with self._lock:
            self._active -= 1

    def snapshot(self, connections: int) -> Counts:
        """Return the counts now."""
        with self._lock:
            return Counts(
                **self._sums,
                requests=self._paths.total(),
                active=self._active,
                peak=self._peak,
                connections=connections,
                faults=self._faults.total(),
                by_path=dict(self._paths),
                by_fault=dict(self._faults),
            )

    @property
    def requests(self) -> list[Recorded]:
        """A copy of the requests kept so far, in order of arrival."""
        with self._lock:
            return sorted(self._requests, key=lambda kept: kept.number)
