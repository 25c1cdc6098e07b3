"""Metering: for models whose framework makes the calls, so that its callbacks have to reserve and to settle.

A model that `Run` calls itself is priced: `Model.bound` says what a call may cost, and `Run` reserves. A model inside
somebody's chain is metered: `Model.bound` is None, and a `Meter` reserves when the framework says that a call starts,
and settles when it says that the call has ended. Never both for one model.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from tts_plugins._calls.caller import acquire, check_bounds
from tts_plugins._calls.context import SCOPE
from tts_plugins._calls.prompt_bound import PromptBound, Written
from tts_plugins._concurrency import forks
from tts_plugins._internal.config import check_price
from tts_plugins._internal.token_usage import Price, Report, Trust, count_of, measure, pricing, without
from tts_plugins.budget import Amount, Bound
from tts_plugins.errors import (
    BudgetExhausted,
    CandidateError,
    Charge,
    ConfigurationError,
)
from tts_plugins.ledger import NOTHING, Hold, Ledger
from tts_plugins.protocols import Role
from tts_plugins.types import Usage

Prices = tuple[float, float] | Mapping[str, tuple[float, float]] | None
"""US dollars per million prompt and completion tokens: for every model, or by model name; None for published ones."""

_MODELS = 256


class MeterClosed(CandidateError):
    """A call was about to start for a candidate that has ended: it was cancelled, or the search is over."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A model call that is about to start.

    Attributes:
        model: its name, for prices, messages and what was learnt of its prompts.
        prompt: all that is sent, `{"messages": …, "tools": …}`; its bytes bound its tokens until they were counted.
        choices: generations asked for.
        max_tokens: completion tokens of one choice at most; None if the call does not say.
    """

    model: str
    prompt: Mapping[str, Any]
    choices: int = 1
    max_tokens: int | None = None


@dataclass(slots=True)
class _Open(Written):
    """A call under way, with the measures of its prompt in its place, and what it is charged by.

    Attributes:
        bound: the most that one choice can cost.
        learnt: what is known of the model.
        hold: what is reserved for it; None until it is.
    """

    choices: int
    max_tokens: int | None
    continued: str | None
    bound: Bound
    learnt: _Learnt
    price: Price | None
    hold: Hold | None

    @property
    def amount(self) -> Amount:
        """What is to be reserved for it."""
        return self.bound.amount.times(self.choices)

    @classmethod
    def of_call(cls, call: Call, prices: Prices) -> _Open:
        """Return a call that is about to start, by what is known of the model's prompts."""
        written, learnt, price = Written.of(call.prompt), _learnt_of(call.model), _price(prices, call.model)
        prompt, limit = learnt.prompts.of(written), learnt.trust.limit(call.max_tokens)
        usd = None if price is None or limit is None else price(prompt, limit)
        return cls(
            written.key, written.shape, written.content, written.tokens, written.media, call.choices, call.max_tokens,
            _continued(call), _bound_of(prompt, limit, usd), learnt, price, None,
        )  # fmt: skip


@lru_cache(maxsize=256)
def _bound_of(prompt: int, completion: int | None, usd: float | None) -> Bound:
    """Return a bound: one object for all candidates of a prompt, since thousands may be in flight."""
    return Bound(prompt_tokens=prompt, completion_tokens=completion, usd=usd)


class Meter:
    """The calls of one candidate, or of one verification. Thread-safe; it never waits: it reserves or raises.

    Args:
        ledger: the account that pays.
        role: "model" or "verifier", for the usage by role.
        prices: dollars per million tokens; None looks up published prices if `genai-prices` is installed.
        prepaid: a hold from `room()`, which the first call draws from.
    """

    __slots__ = (
        "__weakref__", "_closed", "_ledger", "_left", "_open", "_prepaid", "_prices", "_refused", "_role", "_started",
        "_usage", "refusal",
    )  # fmt: skip

    def __init__(
        self, ledger: Ledger, *, role: Role = "model", prices: Prices = None, prepaid: Hold | None = None
    ) -> None:
        self._ledger, self._role, self._prices, self._prepaid = ledger, role, prices, prepaid
        self._open: dict[Hashable, _Open] = {}
        self._left: Collection[Hashable] = ()  # charged at their reserve when this was closed: they may still end
        self._usage = NOTHING
        self._started = 0
        self._closed = False
        self.refusal: BudgetExhausted | ConfigurationError | MeterClosed | None = None
        self._refused: Call | None = None

    @classmethod
    def here(cls, *, role: Role = "model", prices: Prices = None, prepaid: Hold | None = None) -> Meter:
        """Return a meter on the account of the solve that this runs in.

        Raises:
            ConfigurationError: it runs in none.
        """
        scope = SCOPE.get()
        if scope is None:
            raise ConfigurationError("Meter.here: no solve is running here; use Meter(ledger)")
        return cls(scope.ledger, role=role, prices=prices, prepaid=prepaid)

    @property
    def prices(self) -> Prices:
        """What its calls cost, as it was given."""
        return self._prices

    @property
    def usage(self) -> Usage:
        """What was settled so far."""
        return self._usage

    @property
    def closed(self) -> bool:
        """Whether its candidate has ended, so that no further call starts."""
        return self._closed

    @property
    def untouched(self) -> bool:
        """Whether no call was started, so that nothing is lost by starting again."""
        return self._started == 0

    def start(self, key: Hashable, call: Call) -> None:
        """Hold the worst case of a call.

        Raises:
            BudgetExhausted: there is no room now; `refused` is what it would have needed.
            UnboundedCallError, UnknownPriceError: the limit cannot hold over this call.
            MeterClosed: nobody waits for this candidate any more.
        """
        opened = _Open.of_call(call, self._prices)
        try:
            with _guard:
                if self._closed:
                    raise MeterClosed(f"{call.model}: this candidate has ended; the call is not made")
                check_bounds(call.model, opened.bound, self._ledger)
                within = self._prepaid if self._prepaid is not None and self._prepaid.open else None
                opened.hold = self._ledger.reserve(opened.amount, within=within)
                self._open[key] = opened
                self._started += 1
        except (ConfigurationError, MeterClosed) as refusal:
            self.refusal, self._refused = refusal, None
            raise
        except BudgetExhausted as error:
            self.refusal, self._refused = _refusal_of(error, call), call
            raise self.refusal from None

    def end(
        self,
        key: Hashable,
        *,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        texts: Sequence[str],
        truncated: Sequence[bool],
        cached_tokens: int = 0,
        cached: bool = False,
        requests: int = 1,
    ) -> None:
        """Charge what the call took: the counts if they are present and plausible, else its bound.

        Args:
            texts: what each choice says, reasoning and tool calls included.
            truncated: which of them were cut by the limit.
            cached_tokens: those of the prompt that the server had in a cache; they are charged like the others.
            cached: the whole reply came from a cache on this side, and costs nothing.
            requests: how many were sent; with one for each choice, the counts are of all choices.
        """
        with _guard:
            opened = self._open.pop(key, None)
        if opened is None:
            return  # it was charged at its reserve when the candidate ended
        if cached:
            assert opened.hold is not None
            opened.hold.release()
            return
        said = list(texts) if opened.continued is None else [without(opened.continued, text) for text in texts]
        usage = measure(
            Report(
                prompt=count_of(prompt_tokens, 1),
                completion=count_of(completion_tokens, 0),
                thought=0,
                cached=count_of(cached_tokens, 1) or 0,
                every_choice=requests >= opened.choices,
                upper_bound=False,
            ),
            said or [""] * opened.choices,
            list(truncated) or [False] * opened.choices,
            prompt_bound=opened.bound.prompt_tokens * requests,
            max_tokens=opened.max_tokens,
            hidden=True,  # a framework may keep reasoning to itself
            price=opened.price,
            trust=opened.learnt.trust,
        )
        if usage.exact:
            opened.learnt.prompts.saw(opened, math.ceil(usage.prompt_tokens / requests))
        self._settle(opened, usage if usage.requests == requests else replace(usage, requests=requests))

    def knows(self, key: Hashable) -> bool:
        """Return whether a call that was started under this key is under way, be it after this was closed."""
        with _guard:
            return key in self._open or key in self._left

    def unreserved(self, *, prompt_tokens: int | None, completion_tokens: int | None, model: str) -> None:
        """Charge a call that was made without `start`: all of it is overshoot, and the account reports it as such."""
        price = _price(self._prices, model)
        prompt, completion = prompt_tokens or 0, completion_tokens or 0
        usage = Usage(
            calls=1, requests=1, prompt_tokens=prompt, completion_tokens=completion,
            usd=None if price is None else price(prompt, completion),
            exact=prompt_tokens is not None and completion_tokens is not None,
        )  # fmt: skip
        self._ledger.reserve(Amount()).settle(usage, role=self._role)
        self._add(usage)

    def fail(self, key: Hashable, charge: Charge) -> None:
        """Charge a call that failed: its `reserve`, one `call` without tokens, or `nothing`."""
        with _guard:
            opened = self._open.pop(key, None)
        if opened is not None:
            self._fail(opened, charge)

    def close(self) -> Usage:
        """Charge what is still open at its reserve, let no further call start, and return the usage of all calls."""
        with _guard:
            self._closed = True
            if left := self._open:
                self._open, self._left = {}, {*self._left, *left}
        for opened in left.values():
            self._fail(opened, "reserve")
        if self._prepaid is not None:
            self._prepaid.release()
        return self._usage

    @property
    def refused(self) -> Amount | None:
        """What the call that was refused for lack of room may take, as far as it is known now; None without one."""
        call = self._refused
        return None if call is None else _Open.of_call(call, self._prices).amount

    def hear(self, error: BudgetExhausted) -> None:
        """Take the refusal of a solve inside as one of this meter's, if it is this meter's account that had no room."""
        if isinstance(error.ledger, Ledger) and error.ledger.pays_for(self._ledger):
            self.refusal = self.refusal or error

    async def room(self) -> Hold:
        """Wait until what was refused fits: a hold for the first call of another attempt, with a meter of its own.

        Raises:
            BudgetExhausted: it will not fit, since no call in flight can make room.
        """
        if self._refused is None:
            raise ValueError("room() is for a meter that refused a call for lack of room")
        try:
            return await self._room()
        except BudgetExhausted as error:
            raise _refusal_of(error, self._refused) from None

    async def _room(self) -> Hold:
        scope = SCOPE.get()
        around = None if scope is None else scope.hold  # it keeps room for its verification meanwhile, and cannot end
        amount = self.refused
        while True:
            assert amount is not None
            try:
                return await acquire(self._ledger, amount, around=around)
            except BudgetExhausted:
                # Retry with a tighter bound if one was learned while waiting.
                before, amount = amount, self.refused
                if amount is None or not any(before.excess(amount)):
                    raise

    def _fail(self, opened: _Open, charge: Charge) -> None:
        if charge == "reserve":
            usage = replace(opened.bound.usage(opened.choices), exact=False)
        else:
            usage = NOTHING if charge == "nothing" else opened.bound.usage(tokens=False)
        self._settle(opened, usage)

    def _settle(self, opened: _Open, usage: Usage) -> None:
        assert opened.hold is not None
        opened.hold.settle(usage, role=self._role, bounded=opened.max_tokens is not None)
        self._add(usage)

    def _add(self, usage: Usage) -> None:
        with _guard:  # most have a single call
            self._usage = usage if self._usage is NOTHING else self._usage + usage


def _refusal_of(error: BudgetExhausted, call: Call) -> BudgetExhausted:
    """Return the refusal with the call that it is of, and the setting of that call that decides what it may take."""
    if str(error).startswith(f"{call.model}: "):
        return error
    limit = "" if call.max_tokens is None else f" (max_tokens={call.max_tokens})"
    refusal = BudgetExhausted(f"{call.model}: {error}{limit}")
    refusal.ledger = error.ledger
    return refusal


def _continued(call: Call) -> str | None:
    """Return the assistant's turn that a call continues: llama.cpp repeats it in its reply, and does not count it."""
    messages = call.prompt.get("messages") or [None]
    last = messages[-1]
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        return None
    return said if isinstance(said := last.get("content"), str) else None


class _Learnt(NamedTuple):
    """What was learnt of a model's prompts, and of its server's counts; all meters share it."""

    prompts: PromptBound
    trust: Trust


_learnt: OrderedDict[str, _Learnt] = OrderedDict()
_published: OrderedDict[str, Price | None] = OrderedDict()
_guard = forks.lock()


def _learnt_of(model: str) -> _Learnt:
    with _guard:
        found = _learnt.pop(model, None) or _Learnt(PromptBound(), Trust())
        _learnt[model] = found
        while len(_learnt) > _MODELS:
            _learnt.popitem(last=False)
        return found


@lru_cache(maxsize=_MODELS)
def _own_price(own: tuple[float, float], model: str) -> Price | None:
    return pricing(own, model, None)


def _price(prices: Prices, model: str) -> Price | None:
    own = prices.get(model) if prices is not None and isinstance(prices, Mapping) else prices
    if own is not None:
        check_price(model, own)
        return _own_price(tuple(own), model)
    with _guard:
        if model not in _published:
            _published[model] = pricing(None, model, None)
            while len(_published) > _MODELS:
                _published.popitem(last=False)
        return _published[model]
