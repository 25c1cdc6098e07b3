"""Every call of a language model in a candidate: made as the candidate makes it, on the account of its search.

DSPy has no hook that every call passes, that sees what it is asked, may refuse it, and sees what it used: callbacks
and usage trackers are settings, which programs replace, and adapters can be called past. So the methods that are called
themselves, `__call__` and `acall` of `dspy.BaseLM` and of the classes that override them, are wrapped once. Outside of
a search they do what they did.

A call without room is not made, and raises `Refused`, which is no `Exception`: no `except Exception` on the way out
takes it for a failed attempt. What a call used is what DSPy tells its usage tracker, which hears nothing of cache hits.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import dspy

from tts_plugins.adapters import charge_of
from tts_plugins.errors import BudgetExhausted, Charge, ConfigurationError, TTSError
from tts_plugins.metering import MeterClosed
from tts_plugins_dspy._calls.own_models import NUMBER, refuses_number
from tts_plugins_dspy._calls.prompting import prompted
from tts_plugins_dspy._calls.scope import Scope, scope_here, standing
from tts_plugins_dspy._calls.usage import Reports, cached_tokens_of, call_of, tells_usage, text_of, token_counts
from tts_plugins_dspy._calls.versions import from_cache, message_call

_METHODS = ("__call__", "acall")
_COVERED, _SEARCHES = "_tts_plugins_covered", "_tts_plugins_searches"


class Refused(BaseException):
    """A call that is not made; `why` is the budget's or the settings' refusal, or that its candidate has ended."""

    def __init__(self, why: TTSError) -> None:
        super().__init__(str(why))
        self.why = why


def cover(*kinds: type) -> None:
    """Wrap the methods of these classes, and of all language models that are known so far.

    `ScaledLM` makes no call of its own: the model that it asks is covered. Classes that are defined later are wrapped
    when they are defined; a method that is set on a class, by the next search.
    """
    for kind in (*kinds, *_with_subclasses(dspy.BaseLM)):
        if _SEARCHES in vars(kind):
            continue
        for name in _METHODS:
            method = vars(kind).get(name)
            if inspect.isfunction(method) and not hasattr(method, _COVERED):
                wrapped = _acovered(method) if inspect.iscoroutinefunction(method) else _covered(method)
                setattr(wrapped, _COVERED, True)
                setattr(kind, name, wrapped)


def cover_later() -> None:
    """Wrap the methods of each class of language models as it is defined, be it inside of a search."""
    base: Any = dspy.BaseLM
    own = vars(base).get("__init_subclass__")

    def __init_subclass__(cls: type, /, **options: Any) -> None:
        if own is None:
            super(base, cls).__init_subclass__(**options)
        else:
            own.__func__(cls, **options)
        cover(cls)

    if not hasattr(getattr(own, "__func__", None), _COVERED):
        setattr(__init_subclass__, _COVERED, True)
        base.__init_subclass__ = classmethod(__init_subclass__)


def _with_subclasses(kind: Any) -> Iterator[Any]:
    yield kind
    for below in kind.__subclasses__():
        yield from _with_subclasses(below)


def _covered(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = scope_here()
        if scope is None or _goes_on(scope, self, method):
            return method(self, *args, **kwargs)
        made = LMCall(scope, self, method, args, kwargs)
        made.enter()
        try:
            try:
                outputs = method(self, *made.args, **made.kwargs)
            except Exception as error:
                if not made.goes_without(error):
                    raise
                outputs = method(self, *made.args, **made.kwargs)
            return made.ended(outputs)
        except BaseException as error:
            made.failed(error)
            raise
        finally:
            made.leave()

    return call


def _acovered(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = scope_here()
        if scope is None or _goes_on(scope, self, method):
            return await method(self, *args, **kwargs)
        made = LMCall(scope, self, method, args, kwargs)
        del args, kwargs  # those of the call are others
        made.enter()
        try:
            try:
                outputs = await method(self, *made.args, **made.kwargs)
            except Exception as error:
                if not made.goes_without(error):
                    raise
                outputs = await method(self, *made.args, **made.kwargs)
            return made.ended(outputs)
        except BaseException as error:
            made.failed(error)
            raise
        finally:
            made.leave()

    return call


def _goes_on(scope: Scope, lm: Any, method: Callable[..., Any]) -> bool:
    """Whether this is a further method of the call that runs: one that a subclass's method calls by `super()`."""
    running = scope.running
    if running is None or running.lm is not lm or method in (running.method, *running.further):
        return False
    running.further += (method,)
    return True


class LMCall(Reports):
    """One call of a language model: reserved before it is made, and settled after it by what DSPy reports to it.

    Attributes:
        args, kwargs: what the model is called with.
        method, further: those of the model's classes that the call has gone through.

    Raises:
        Refused: there is no room, or nobody waits for this candidate any more.
    """

    def __init__(
        self, scope: Scope, lm: Any, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        super().__init__(standing("usage_tracker"))
        self._meter, self.lm, self.method = scope.meter, lm, method
        self.further: tuple[Callable[..., Any], ...] = ()
        self.args, self.kwargs = prompted(scope, lm, args, kwargs)
        self._messages = kwargs.get("messages")
        self._scope = scope  # the one around: that of the call refers to the call
        self._handed_over = False
        self._announced: AbstractContextManager[Any] | None = None

    # No context manager: its `__exit__` would be one more object for each call under way.

    def enter(self) -> None:
        """Reserve what the call may take, and set DSPy's settings for it."""
        if self._scope.running is not None:
            self._scope.running.hand_over()
        call = call_of(self.lm, self.args, self.kwargs)
        self._choices = call.choices
        try:
            self._meter.start(self, call)
        except (BudgetExhausted, ConfigurationError, MeterClosed) as error:
            raise Refused(error) from error
        modules = [*(standing("caller_modules") or []), self]
        self._inside = self._scope.calling(self)
        self._inside.enter(usage_tracker=self, caller_modules=modules)
        messages = self.kwargs.get("messages")
        if messages is not self._messages:  # with hints; the adapter's own that it knows are others
            self._announced = message_call(self.lm, messages)
            self._announced.__enter__()

    def leave(self) -> None:
        """Set the settings that were there before."""
        if self._announced is not None:
            self._announced.__exit__(None, None, None)
        self._inside.leave()
        del self._inside  # it refers to the call

    def failed(self, error: BaseException) -> None:
        """Charge what a call that raised may have taken."""
        if self._handed_over:
            self._charge_own()
        else:
            self._meter.fail(self, "reserve" if self.counts else _charge(error))

    def goes_without(self, error: Exception) -> bool:
        """Whether the call can be tried again: without the candidate's number, which the error says is refused."""
        if not refuses_number(self.lm, error, self.kwargs):
            return False
        del self.kwargs[NUMBER]
        self.further = ()
        return True

    def hand_over(self) -> None:
        """Free what is reserved: this model passes the call on to another one, whose call pays."""
        if not self._handed_over:
            self._handed_over = True
            self._meter.end(self, prompt_tokens=None, completion_tokens=None, texts=[], truncated=[], cached=True)

    def ended(self, outputs: Any) -> Any:
        """Charge what it took, and return the outputs."""
        if self._handed_over:
            self._charge_own()
            return outputs
        said = outputs if isinstance(outputs, list) else []
        if self._scope.hints and self._scope.written is not None:
            self._scope.written.extend(text for output in said if (text := text_of(output).strip()))
        counted, (entered, cached, requests) = self.counts, self.entry()
        # DSPy reports every call that it made, even if the usage is empty.
        cached = cached or (entered is None and tells_usage(self.lm))
        usage = counted or token_counts(entered or {})
        self._meter.end(
            self,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cached_tokens=cached_tokens_of(usage),
            texts=[text_of(output) for output in said],
            truncated=[False] * len(said),
            requests=requests or self._choices,
            cached=cached and from_cache(counted),
        )
        return outputs

    def _charge_own(self) -> None:
        """Charge what a model used itself that passed a part of its call on."""
        counts = {name: (self.counts or {}).get(name) for name in ("prompt_tokens", "completion_tokens")}
        if any(counts.values()):
            self._meter.unreserved(**counts, model=str(getattr(self.lm, "model", type(self.lm).__name__)))


def _charge(error: BaseException) -> Charge:
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    return charge_of(error, status)
