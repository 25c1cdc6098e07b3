"""What a call is charged (the usage that it reports, or its bound, and nothing twice), and why it failed. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add

from tts_plugins._internal.values import linked
from tts_plugins.budget import Bound
from tts_plugins.errors import ModelError
from tts_plugins.ledger import Hold
from tts_plugins.types import Reply, Usage


def counted(reply: Reply, bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """Return the usage that a call reports: at least a call for each generation, and its price if it has one."""
    usage = reply.usage
    if usage is None:
        return replace(unreported(bound, inner, count), requests=0)
    if bound is None or inner is None:
        return usage
    paid = _paid_inside(inner)
    if paid is not None:
        return _beyond(usage, paid)
    if usage.usd is None and bound.usd is not None:
        usage = replace(usage, usd=bound.usage(count).usd, exact=False)
    least = bound.calls * min(len(reply.generations), count)
    return usage if usage.calls >= least else replace(usage, calls=least)


def unreported(bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """Return the bound of a call that reports no usage, or nothing if solves inside it have paid already."""
    if bound is None or inner is None or _paid_inside(inner) is not None:
        return Usage()
    usage = bound.usage(count)
    return replace(usage, exact=usage.tokens == 0)


def failure(error: ModelError, bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """Return what a call is charged that failed with this error."""
    if error.charge == "reserve":
        usage = unreported(bound, inner, count)
    elif bound is None or error.charge == "nothing":
        return Usage()
    else:
        usage = bound.usage(tokens=False)
    return replace(usage, requests=max(usage.requests, error.requests)) if usage.requests else usage


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def cause_for(found: BaseException, error: BaseException | None) -> BaseException | None:
    """Return the cause of `found`, which is raised in place of `error`: `error`, unless that leads back to `found`.

    An error of ours is raised again for what user code or a client made of it on its way. If it became its own cause,
    whoever follows causes would never end, and only the collector of cycles would free it.
    """
    if error is not None and any(one is found for one in linked(error)):
        return found.__cause__
    return error


def shortage(error: BaseException) -> str | None:
    """Return what this machine lacked, if that is why a call failed: a thread, a file descriptor, memory."""
    for seen in linked(error):
        if isinstance(seen, MemoryError) or (isinstance(seen, OSError) and seen.errno in _SHORT):
            return f"{type(seen).__name__}: {seen}"
        if isinstance(seen, RuntimeError) and "start" in str(seen) and "thread" in str(seen):
            return str(seen)
    return None


_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _paid_inside(inner: Hold) -> Usage | None:
    """Return what solves inside a call have paid; None if there were none."""
    if inner.amount == inner.size and not inner.inside:
        return None
    return reduce(add, inner.inside, Usage())


def _beyond(usage: Usage, paid: Usage) -> Usage:
    """Return what a call took in addition to `paid`. It reports the whole call, unless that is less than was paid."""
    names = ("calls", "prompt_tokens", "completion_tokens")
    if any(getattr(usage, name) < getattr(paid, name) for name in names):
        return usage  # less than was paid: it reports only its own part
    usd = None if usage.usd is None or paid.usd is None else max(usage.usd - paid.usd, 0.0)
    prompt = usage.prompt_tokens - paid.prompt_tokens
    return replace(
        usage,
        calls=usage.calls - paid.calls,
        requests=max(usage.requests - paid.requests, 0),
        prompt_tokens=prompt,
        completion_tokens=usage.completion_tokens - paid.completion_tokens,
        cached_tokens=min(max(usage.cached_tokens - paid.cached_tokens, 0), prompt),
        usd=usd,
        overshoot=max(usage.overshoot - paid.overshoot, 0),
    )
