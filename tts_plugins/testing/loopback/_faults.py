"""What a server can do wrong, as data: one fault, and the plan that says which request meets which fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Kind = Literal[
    "status", "truncated_json", "html", "empty_choices", "null_content", "missing_message", "usage", "slow_trickle",
    "reset", "hang", "close_mid_stream", "stream_without_done", "wrong_content_type", "partial_choices",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which one request goes wrong. Build it with the class methods, not by hand."""

    kind: Kind
    code: int = 200
    retry_after: float | str | None = None
    body: str | None = None
    variant: str = "missing"
    interval: float = 0.0
    size: int = 1
    cut: int | None = None
    latency: float | None = None
    charged: bool = True

    def after(self, seconds: float) -> Fault:
        """Return the same fault, shown this many seconds after arrival instead of after the server's latency."""
        return replace(self, latency=seconds)

    @classmethod
    def status(
        cls, code: int, *, retry_after: float | str | None = None, body: str | None = None, charged: bool = False
    ) -> Fault:
        """Answer with an HTTP error in OpenAI's form, or with this body; charged=True: the tokens were spent first."""
        if not 400 <= code <= 599:
            raise ValueError(f"code={code}: an error status is 400 to 599")
        return cls(kind="status", code=code, retry_after=retry_after, body=body, charged=charged)

    @classmethod
    def truncated_json(cls) -> Fault:
        """Answer 200 with JSON that stops half way (its Content-Length agrees with what is sent)."""
        return cls(kind="truncated_json")

    @classmethod
    def html(cls) -> Fault:
        """Answer 200 with a proxy's HTML page."""
        return cls(kind="html")

    @classmethod
    def empty_choices(cls) -> Fault:
        """Answer with choices=[]; the tokens are charged all the same."""
        return cls(kind="empty_choices")

    @classmethod
    def null_content(cls) -> Fault:
        """Answer with null as every choice's content."""
        return cls(kind="null_content")

    @classmethod
    def missing_message(cls) -> Fault:
        """Answer with choices that lack their message (their delta, their text)."""
        return cls(kind="missing_message")

    @classmethod
    def usage(cls, variant: str) -> Fault:
        """Report usage in one of the ways of `USAGES`, for this request."""
        return cls(kind="usage", variant=variant)

    @classmethod
    def no_usage(cls) -> Fault:
        """Report no usage in the reply."""
        return cls.usage("missing")

    @classmethod
    def negative_usage(cls) -> Fault:
        """Report negative token counts."""
        return cls.usage("negative")

    @classmethod
    def slow_trickle(cls, interval: float = 0.05, size: int = 1) -> Fault:
        """Send a valid body, `size` bytes every `interval` seconds: no single read is ever late."""
        return cls(kind="slow_trickle", interval=interval, size=size)

    @classmethod
    def reset(cls, after: int | None = None) -> Fault:
        """Send a TCP RST before any header, or after this many bytes of the body."""
        return cls(kind="reset", cut=after)

    @classmethod
    def hang(cls) -> Fault:
        """Never answer; end when the client goes away or the server stops."""
        return cls(kind="hang")

    @classmethod
    def close_mid_stream(cls, after: int = 1) -> Fault:
        """Close the connection (FIN) after this many frames of a stream, or half way through a JSON body."""
        return cls(kind="close_mid_stream", cut=after)

    @classmethod
    def stream_without_done(cls, after: int | None = None) -> Fault:
        """End the stream cleanly but without [DONE]; with `after`, end it early, after this many frames."""
        return cls(kind="stream_without_done", cut=after)

    @classmethod
    def wrong_content_type(cls) -> Fault:
        """Send the right body, announced as application/octet-stream."""
        return cls(kind="wrong_content_type")

    @classmethod
    def partial_choices(cls, count: int = 1) -> Fault:
        """Answer with at most this many choices, however many were requested; only these are charged."""
        return cls(kind="partial_choices", cut=count)

    @staticmethod
    def first(k: int, fault: Fault) -> Plan:
        """Return a plan in which the first k requests meet the fault and the rest are fine."""
        return Plan(rule="first", k=k, fault=fault)

    @staticmethod
    def every(k: int, fault: Fault) -> Plan:
        """Return a plan in which every k-th request meets the fault (k - 1, 2k - 1, ..., counted from 0)."""
        if k < 1:
            raise ValueError(f"k={k}: every k-th request needs k of at least 1")
        return Plan(rule="every", k=k, fault=fault)

    @staticmethod
    def random(p: float, seed: int = 0, fault: Fault | None = None) -> Plan:
        """Return a plan in which each request meets the fault (default: a reset) with probability p, by seed."""
        if not 0 <= p <= 1:
            raise ValueError(f"p={p}: a probability is 0 to 1")
        return Plan(rule="random", p=p, seed=seed, fault=fault or Fault.reset())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which requests, counted from 0 in order of arrival, meet which fault. `a | b` asks a, then b."""

    rule: Literal["first", "every", "random", "listed"]
    k: int = 0
    p: float = 0.0
    seed: int = 0
    fault: Fault | None = None
    listed: Mapping[int, Fault] = field(default_factory=dict)
    otherwise: Plan | None = None

    def __call__(self, number: int) -> Fault | None:
        """Return the fault that this request meets."""
        found = self._own(number)
        return found if found is not None or self.otherwise is None else self.otherwise(number)

    def __or__(self, other: Plan) -> Plan:
        """Return a plan that follows this one, and the other one where this one has no fault."""
        return replace(self, otherwise=other if self.otherwise is None else self.otherwise | other)

    def _own(self, number: int) -> Fault | None:
        if self.rule == "listed":
            return self.listed.get(number)
        if self.rule == "first":
            hit = number < self.k
        elif self.rule == "every":
            hit = (number + 1) % self.k == 0
        else:
            # by number, not from a running generator: the same request fails whatever the order of arrival
            hit = random.Random(f"{self.seed}:{number}").random() < self.p
        return self.fault if hit else None


Faults = Fault | Plan | Sequence[Fault | None] | Mapping[int, Fault] | Callable[[int], Fault | None]


def as_plan(faults: Faults | None) -> Callable[[int], Fault | None]:
    """Return any form of a plan as one function of the request's number; a lone Fault meets every request."""
    if faults is None:
        return Plan(rule="listed")
    if isinstance(faults, Fault):
        return Plan(rule="every", k=1, fault=faults)
    if isinstance(faults, Mapping):
        return Plan(rule="listed", listed=dict(faults))
    if isinstance(faults, Sequence):
        return Plan(rule="listed", listed={i: fault for i, fault in enumerate(faults) if fault is not None})
    return faults


def plan_to_json(faults: Faults | None) -> dict[str, Any]:
    """Return the plan as JSON, for the server in another process.

    Raises:
        TypeError: the plan is a function, which cannot travel.
    """
    plan = as_plan(faults)
    if not isinstance(plan, Plan):
        raise TypeError(
            "faults: a function cannot go to another process; use Fault.first/every/random, a list or a dict"
        )
    return asdict(plan)


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """Return the inverse of `plan_to_json`."""
    otherwise, fault = data.get("otherwise"), data.get("fault")
    fields = {key: data[key] for key in ("rule", "k", "p", "seed") if key in data}
    return Plan(
        **fields,
        fault=None if fault is None else Fault(**fault),
        listed={int(number): Fault(**each) for number, each in data.get("listed", {}).items()},
        otherwise=None if otherwise is None else plan_from_json(otherwise),
    )
