"""Every call of a language model in a candidate, on the account of its search.

A callback reserves when a call starts, and settles when it ends. DSPy logs and drops what a callback raises, unless it
is no `Exception`: `Refused` is none, so that a call without room is not made, and no `except Exception` on the way out
takes it for a failed attempt. The tokens are what DSPy tells its usage tracker, which hears nothing of cache hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from pydantic import BaseModel

from tts_plugins import Ledger
from tts_plugins.adapting import charge_of
from tts_plugins.errors import BudgetExhausted, Charge, ConfigurationError
from tts_plugins.metering import Call, Meter, MeterClosed

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Refused(BaseException):
    """A call that is not made; the meter's `refusal` says why."""


class MeterCallback(BaseCallback):  # type: ignore[misc]
    """A meter as a DSPy callback; it belongs to one candidate or verification.

    Args:
        ledger: the account of the search, for searches inside threads that lost their context.
    """

    def __init__(self, meter: Meter, ledger: Ledger | None) -> None:
        self.meter, self.ledger = meter, ledger
        self._reported: dict[str | None, Mapping[str, Any]] = {}

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Hold what the call may cost.

        Raises:
            Refused: there is no room, or nobody waits any more; the call is not made.
        """
        asked = {**getattr(instance, "kwargs", {}), **inputs.get("kwargs", {})}
        sent = {key: _schema(asked[key]) for key in ("tools", "response_format") if asked.get(key)}
        messages = inputs.get("messages") or [str(inputs.get("prompt"))]
        choices = asked.get("n")
        call = Call(
            model=str(getattr(instance, "model", type(instance).__name__)),
            prompt={"messages": messages, **sent},
            choices=choices if isinstance(choices, int) and choices > 0 else 1,
            max_tokens=_limit(asked, inputs.get("prompt")),
        )
        try:
            self.meter.start(call_id, call)
        except (BudgetExhausted, ConfigurationError, MeterClosed) as error:
            raise Refused(str(error)) from error

    def report(self, usage: Mapping[str, Any]) -> None:
        """What DSPy tells of the call that runs here."""
        self._reported[ACTIVE_CALL_ID.get()] = usage

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Charge what it took: a refusal costs a call and no tokens, what cannot be counted its reserve."""
        usage = self._reported.pop(call_id, None)
        if exception is not None:
            self.meter.fail(call_id, _charge(exception))
            return
        tracker = dspy.settings.get("usage_tracker")
        heard = isinstance(tracker, _Tap) and tracker.callback is self
        told = usage or {}
        self.meter.end(
            call_id,
            prompt_tokens=told.get("prompt_tokens"),
            completion_tokens=told.get("completion_tokens"),
            texts=[_said(output) for output in outputs] if isinstance(outputs, list) else [],
            truncated=[False] * len(outputs) if isinstance(outputs, list) else [],
            cached=usage is None and heard,  # a call that was made is told of, even where its usage is empty
        )


class _Tap:
    """A usage tracker that passes on what it hears."""

    def __init__(self, callback: MeterCallback, outer: Any) -> None:
        self.callback, self._outer = callback, outer

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        self.callback.report(usage_entry)
        if self._outer is not None:
            self._outer.add_usage(lm, usage_entry)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)

    def __deepcopy__(self, memo: Any) -> _Tap:
        return self  # `dspy.Parallel` copies trackers, and what is told to a copy is lost


class _Metered(list[Any]):
    """The callbacks of a candidate: a meter, and the user's own.

    DSPy tells callbacks of modules and adapters too, and what it prepares to tell takes longer than all else that is
    done for a candidate here; a meter hears of language models alone. DSPy adds each object's own list to this one:
    where that list is known to be of no language model, the meter is left out. Wherever it is not known, it is in.
    """

    def __init__(self, meter: MeterCallback, others: list[Any], deaf: Mapping[int, list[Any]]) -> None:
        super().__init__([meter, *others])
        self._others, self._deaf = others, deaf

    def __add__(self, own: Any) -> list[Any]:
        known = id(own) in self._deaf  # which keeps the list, so that no other one can have its id
        return [*(self._others if known else self), *own]


def deaf_lists(module: Any, adapter: Any) -> dict[int, list[Any]]:
    """The lists of callbacks of a program's modules and of its adapter, by identity, that no language model can share.

    One with something in it may be what the user has given to a language model as well. Modules are looked for in
    attributes alone: `named_sub_modules` also reads all that a program remembers of its calls.
    """
    owners, seen = [dspy.settings.get("lm"), adapter, module], set()
    deaf, hearing = dict[int, list[Any]](), set()
    while owners:
        owner = owners.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        listed = getattr(owner, "callbacks", None)
        if isinstance(owner, dspy.BaseLM) or listed:
            hearing.add(id(listed))
        elif isinstance(listed, list):
            deaf[id(listed)] = listed
        if isinstance(owner, dspy.Module):
            owners += [value for value in vars(owner).values() if isinstance(value, dspy.Module | dspy.BaseLM)]
    return {key: listed for key, listed in deaf.items() if key not in hearing}


@contextmanager
def calling(
    meter: Meter, ledger: Ledger | None, deaf: Mapping[int, list[Any]] | None = None, **settings: Any
) -> Iterator[None]:
    """DSPy's settings for what runs as part of a candidate: its meter, and nothing streamed out of it.

    Args:
        deaf: what `deaf_lists` found.
    """
    callback = MeterCallback(meter, ledger)
    # Those of searches around this one are left out: this one's account pays into theirs.
    others = [c for c in dspy.settings.get("callbacks") or [] if not isinstance(c, MeterCallback)]
    outer = dspy.settings.get("usage_tracker")
    tap = _Tap(callback, outer._outer if isinstance(outer, _Tap) else outer)
    callbacks = _Metered(callback, others, deaf or {})
    with dspy.context(callbacks=callbacks, usage_tracker=tap, send_stream=None, **settings):
        yield


def ledger_around() -> Ledger | None:
    """The account of the search around this, where DSPy's settings alone know of it: in threads of `dspy.Parallel`."""
    found = [c for c in dspy.settings.get("callbacks") or [] if isinstance(c, MeterCallback)]
    return found[0].ledger if found else None


def _schema(value: Any) -> Any:
    return value.model_json_schema() if isinstance(value, type) and issubclass(value, BaseModel) else value


def _limit(asked: Mapping[str, Any], request: Any) -> int | None:
    config = getattr(request, "config", None)
    for value in (*(asked.get(name) for name in _LIMITS), getattr(config, "max_tokens", None)):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _said(output: Any) -> str:
    if isinstance(output, Mapping):
        return "".join(str(output.get(key) or "") for key in ("text", "reasoning_content", "tool_calls"))
    return str(output)


def _charge(error: BaseException) -> Charge:
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    return charge_of(error, status)
