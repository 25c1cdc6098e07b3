"""Estimates what a solve may cost before anything is sent. Pure, except that it asks model and verifier for bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Unpack

from tts_plugins._calls.caller import check_bounds
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins._internal.signatures import called_as
from tts_plugins._internal.token_usage import Price
from tts_plugins._trace.wording import money, oneline
from tts_plugins.budget import FREE, Amount, Bound, Budget
from tts_plugins.engine.solve import settings_of
from tts_plugins.ledger import Ledger
from tts_plugins.options import SolveOptions
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier
from tts_plugins.strategies.self_consistency import SelfConsistency
from tts_plugins.types import Problem

# A guess: texts have 3 to 6 bytes a token, and templates write a role and two marks around each message.
BYTES_A_TOKEN, TEMPLATE = 4, 5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a solve would take; None for what is unknown."""

    calls: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None

    @property
    def tokens(self) -> int | None:
        """Prompt and completion tokens together."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Cost) -> Cost:
        """Return both together; unknown where one is."""
        mine, theirs = asdict(self), asdict(other)
        unknown = {name for name in mine if mine[name] is None or theirs[name] is None}
        return Cost(**{name: None if name in unknown else mine[name] + theirs[name] for name in mine})

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, `tokens` included."""
        return {**asdict(self), "tokens": self.tokens}


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a solve may take, and in words what was assumed and what the budget would cut.

    Attributes:
        model: by name, as are the next two.
        strategy: with its settings.
        verifier: None where there is none.
        costs: the "minimum", the "expected" and the "worst_case".
        budget: the limits that it was made for.
        room: how many candidates surely fit into the budget; None without one.
        notes: sentences.
    """

    model: str
    strategy: str
    verifier: str | None
    costs: dict[str, Cost]
    budget: Budget | None
    room: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON."""
        return {
            "dry_run": True,
            "model": self.model,
            "strategy": self.strategy,
            "verifier": self.verifier,
            **{name: cost.to_dict() for name, cost in self.costs.items()},
            "budget": None if self.budget is None else self.budget.to_dict(),
            "room": self.room,
            "notes": list(self.notes),
        }


@called_as("dry_run(problem, model=model, budget=Budget(calls=32))")
def dry_run(problem: object, **options: Unpack[SolveOptions]) -> CostEstimate:
    """Estimate the least, the expected and the most that `solve` would take; nothing is sent, no model is started.

    Args:
        problem: as for `solve`, and so are the other arguments.

    Raises:
        ConfigurationError: a setting is wrong, or the budget could not hold over this model, as in the real solve.
    """
    return run_sync(lambda: estimate(problem, **options))


async def estimate(problem: object, **options: Unpack[SolveOptions]) -> CostEstimate:
    """Do as `dry_run`, in asynchronous code."""
    settings, asked = settings_of(options), Problem.of(problem)
    model, strategy, verifier = settings.model, settings.strategy, settings.verifier
    limits = settings.budget.budget if isinstance(settings.budget, Ledger) else settings.budget
    (least, most), bound, extra, costs = await _figures(model, strategy, verifier, limits, asked)
    room = None if limits is None or most is None else _room(limits, _unit(bound, extra), most)
    notes = [*_assumptions(least, most, bound, settings.attempts), *_cuts(limits, room, most, costs["expected"])]
    further = settings.abstaining.escalation
    if further is not None and further.asks:
        *_, more = await _figures(
            further.model or model, further.strategy or SelfConsistency(n=1), verifier, limits, asked
        )
        costs["worst_case"] = costs["worst_case"].plus(more["worst_case"])
        notes.append(
            f"The worst case alone has the escalation, to {further}: it is asked only what is not sure enough."
        )
    return CostEstimate(
        model=model.name, strategy=brief(strategy), verifier=None if verifier is None else verifier.name,
        costs=costs, budget=limits, room=room, notes=tuple(notes),
    )  # fmt: skip


async def _figures(
    model: Model, strategy: Strategy, verifier: Verifier | SetVerifier | None, limits: Budget | None, problem: Problem
) -> tuple[tuple[int | None, int | None], Bound, Bound, dict[str, Cost]]:
    """Return how many candidates there are, the bounds of one and of its verification, and what all of them cost."""
    bound, prompt, price = await _bounds(model, problem)
    check_bounds(model.name, bound, Ledger(limits))
    extra = FREE if verifier is None else await verifier.bound(problem, bound.completion_tokens)
    counts = getattr(strategy, "calls", None)
    least, most = counts() if callable(counts) else (None, None)
    return (least, most), bound, extra, _costs(least, most, prompt, bound, extra, max(1, model.batch), price)


def brief(thing: object) -> str:
    """Return a configured object in a few words: its class and the settings that are set."""
    if not is_dataclass(thing):
        return oneline(repr(thing))
    pairs = [(f.name, getattr(thing, f.name)) for f in fields(thing) if f.init]
    said = (f"{name}={brief(value)}" for name, value in pairs if value is not None and value is not False)
    return f"{type(thing).__name__}({', '.join(said)})"


async def _bounds(model: Model, problem: Problem) -> tuple[Bound, int, Price | None]:
    """The bound of one sample, a guess of its prompt's tokens, and the price where it is known."""
    from tts_plugins.models import OpenAICompatibleModel  # with all of its package

    if not isinstance(model, OpenAICompatibleModel):
        bound = await model.bound(problem) or Bound()
        return bound, bound.prompt_tokens, None
    bound = await OpenAICompatibleModel.bound(model, problem)  # the local model's own would start its server
    return bound, min(_guess(model, problem), bound.prompt_tokens), model.price


def _guess(model: Any, problem: Problem) -> int:
    messages = model._prompt(problem)["messages"]
    text = sum(len(str(m.get("content", "")).encode("utf-8", "replace")) for m in messages)
    return math.ceil(text / BYTES_A_TOKEN) + TEMPLATE * (
        len(messages) + 1
    )  # the template opens the answer's turn as well


def _costs(
    least: int | None, most: int | None, prompt: int, bound: Bound, extra: Bound, batch: int, price: Price | None
) -> dict[str, Cost]:
    if least is None or most is None:
        unknown = Cost(calls=None, prompt_tokens=None, completion_tokens=None, usd=None)
        return {"minimum": unknown, "expected": unknown, "worst_case": unknown}
    middle = math.ceil((least + most) / 2)
    limit = bound.completion_tokens or 0

    def row(count: int, prompts: int, completion: int, more: Bound) -> Cost:
        usd = None if price is None else price(prompts, completion * count)
        return Cost(
            calls=count * (1 + more.calls),
            prompt_tokens=prompts + count * more.prompt_tokens,
            completion_tokens=count * (completion + (more.completion_tokens or 0)),
            usd=None if usd is None or more.usd is None else usd + count * more.usd,
        )

    return {
        # Choices of one request share its prompt if the server honours n, which the least assumes.
        "minimum": row(least, prompt * math.ceil(least / batch), 1, extra),
        "expected": row(middle, prompt * middle, math.ceil(limit / 2), extra),
        "worst_case": row(most, bound.prompt_tokens * most, limit, extra),
    }


def _unit(bound: Bound, extra: Bound) -> Amount:
    return bound.amount.plus(extra.amount)


def _room(budget: Budget, unit: Amount, most: int) -> int:
    pairs = (
        (budget.limit("calls"), unit.calls),
        (budget.limit("tokens"), unit.tokens),
        (budget.limit("picousd"), unit.picousd),
    )
    return min([most, *(limit // need for limit, need in pairs if limit is not None and need > 0)])


def _assumptions(least: int | None, most: int | None, bound: Bound, attempts: int) -> list[str]:
    if least is None:
        return ["The strategy does not say how many calls it makes."]
    half_way = "" if least == most else ", half way between the fewest and the most candidates"
    notes = [
        "Prompt tokens are guessed, since nothing is sent that could count them: one for every "
        f"{BYTES_A_TOKEN} bytes, and {TEMPLATE} a message for the chat template, which may add a system message too.",
        f"Expected: half of max_tokens={bound.completion_tokens} an answer{half_way}.",
        "Worst case: a token for every byte of the prompt and more than any known template, and all of max_tokens.",
    ]
    if attempts > 1:
        notes.append(f"A failed attempt may be charged as well; each call has up to {attempts} (attempts).")
    return notes


def _cuts(budget: Budget | None, room: int | None, most: int | None, expected: Cost) -> list[str]:
    if budget is None or room is None or most is None:
        return [] if budget is None else ["The budget holds, whatever the strategy asks for."]
    notes = []
    if room == 0:
        notes.append("Budget: no room for even one candidate at its worst case; the run would end without an answer.")
    elif room < most:
        notes.append(f"Budget: room for {room} of {most} candidates at their worst case; more where they take less.")
    elif budget.to_dict().keys() != {"seconds"}:
        notes.append(f"Budget: room for all {most} candidates, even at their worst case.")
    for name, value in (("calls", expected.calls), ("tokens", expected.tokens), ("usd", expected.usd)):
        limit = getattr(budget, name)
        if limit is not None and value is not None and value > limit and room > 0:
            due = money({"usd": value}) if name == "usd" else f"{value:,}"
            notes.append(f"Budget: {name}={limit:,} is below the {due} expected, so it will end the search early.")
    if budget.seconds is not None:
        notes.append(
            f"Budget: after {budget.seconds:g} s the best answer so far is returned; time is not estimated here."
        )
    return notes
