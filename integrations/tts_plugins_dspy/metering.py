"""Every call of a language model in a candidate, on the account of its search.

A callback reserves when a call starts, and settles when it ends. DSPy logs and drops what a callback raises, unless it
is no `Exception`: `Refused` is none, so that a call without room is not made, and no `except Exception` on the way out
takes it for a failed attempt. The tokens are what DSPy tells its usage tracker, which hears nothing of cache hits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback, with_callbacks
from dspy.utils.usage_tracker import UsageTracker
from pydantic import BaseModel

from tts_plugins import Ledger
from tts_plugins.adapters import charge_of
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
        self._telling: set[str] = set()  # calls of models whose silence means that nothing was used

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
        if _tells_usage(instance):
            self._telling.add(call_id)
        try:
            self.meter.start(call_id, call)
        except (BudgetExhausted, ConfigurationError, MeterClosed) as error:
            raise Refused(str(error)) from error

    def report(self, model: str, usage: Mapping[str, Any]) -> None:
        """What DSPy tells of the call that runs here; one that was kept from callbacks is charged all the same."""
        call_id = ACTIVE_CALL_ID.get()
        if self.meter.knows(call_id):
            self._reported[call_id] = usage
        else:
            counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
            self.meter.unreserved(**counts, model=model)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Charge what it took: a refusal costs a call and no tokens, what cannot be counted its reserve."""
        usage, telling = self._reported.pop(call_id, None), call_id in self._telling
        self._telling.discard(call_id)
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
            # A call that DSPy made is told of, even where its usage is empty.
            cached=usage is None and heard and telling,
        )


class _Tap:
    """A usage tracker that passes on what it hears."""

    def __init__(self, callback: MeterCallback, outer: Any) -> None:
        self.callback, self._outer = callback, outer

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        self.callback.report(lm, usage_entry)
        self._outer.add_usage(lm, usage_entry)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)

    def __deepcopy__(self, memo: Any) -> _Tap:
        return self  # `dspy.Parallel` copies trackers, and what is told to a copy is lost


class _Metered(list[Any]):
    """The callbacks of a candidate: a meter, and the user's own.

    DSPy tells callbacks of modules and adapters too, and what it prepares to tell takes longer than all else that is
    done for a candidate here; a meter hears of language models alone. So where DSPy itself asks, for a module or an
    adapter, which callbacks to tell, the meter is left out. Anybody else who adds to this list gets it with the meter.
    """

    def __init__(self, meter: MeterCallback, others: list[Any]) -> None:
        super().__init__([meter, *others])
        self._meter = meter

    def __add__(self, own: Any) -> list[Any]:
        return [*((c for c in self if c is not self._meter) if _of_no_model(sys._getframe(1)) else self), *own]


def _of_no_model(asking: FrameType) -> bool:
    if asking.f_code is not _ASKING:
        return False
    instance = asking.f_locals.get("instance")
    model = isinstance(instance, dspy.BaseLM) or getattr(instance, "supports_decision_requests", False) is True
    return isinstance(instance, dspy.Module | dspy.Adapter) and not model


def _asking() -> CodeType | None:
    """DSPy's function that joins its settings' callbacks with those of an object; None where there is no such one."""
    inside = [const for const in with_callbacks.__code__.co_consts if isinstance(const, CodeType)]
    return next((code for code in inside if code.co_name == "_get_active_callbacks"), None)


_ASKING = _asking()


@contextmanager
def calling(meter: Meter, ledger: Ledger | None, **settings: Any) -> Iterator[None]:
    """DSPy's settings for what runs as part of a candidate: its meter, and nothing streamed out of it."""
    callback = MeterCallback(meter, ledger)
    # Those of searches around this one are left out: this one's account pays into theirs.
    others = [c for c in dspy.settings.get("callbacks") or [] if not isinstance(c, MeterCallback)]
    outer = dspy.settings.get("usage_tracker")
    tap = _Tap(callback, outer._outer if isinstance(outer, _Tap) else outer or UsageTracker())
    with dspy.context(callbacks=_Metered(callback, others), usage_tracker=tap, send_stream=None, **settings):
        yield


def ledger_around() -> Ledger | None:
    """The account of the search around this, where DSPy's settings alone know of it: in threads of `dspy.Parallel`."""
    found = [c for c in dspy.settings.get("callbacks") or [] if isinstance(c, MeterCallback)]
    return found[0].ledger if found else None


def _tells_usage(lm: Any) -> bool:
    """Whether its calls are DSPy's own; a class with a `__call__` of its own may tell nobody what it used."""
    modules = [str(getattr(getattr(type(lm), name, None), "__module__", "")) for name in ("__call__", "acall")]
    return all(module.startswith(("dspy.", "tts_plugins_dspy.")) for module in modules)


def _schema(value: Any) -> Any:
    return value.model_json_schema() if isinstance(value, type) and issubclass(value, BaseModel) else value


def _limit(asked: Mapping[str, Any], request: Any) -> int | None:
    config = getattr(request, "config", None)
    for value in (*(asked.get(name) for name in _LIMITS), getattr(config, "max_tokens", None)):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def output_tokens_of(program: Any) -> int | None:
    """Tokens that a program's answer can have at most if each of its predictors is called once; None if not known.

    A program that is a language model itself has its own limit.
    """
    if hasattr(program, "predictors"):
        models = [getattr(predictor, "lm", None) or dspy.settings.lm for predictor in program.predictors()]
    else:
        models = [getattr(program, "lm", None)]
    limits = [_limit(getattr(lm, "kwargs", {}), None) for lm in models]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _said(output: Any) -> str:
    if isinstance(output, Mapping):
        return "".join(str(output.get(key) or "") for key in ("text", "reasoning_content", "tool_calls"))
    return str(output)


def _charge(error: BaseException) -> Charge:
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    return charge_of(error, status)
