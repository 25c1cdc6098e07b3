"""Estimates what a solve may cost before anything is sent. Pure, except that it asks the verifier for its bound."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tts_plugins._calls.caller import check_bounds
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.token_usage import Price, pricing
from tts_plugins._trace.wording import money
from tts_plugins.budget import FREE, Amount, Bound, Budget
from tts_plugins.cli._arguments.build import price_of
from tts_plugins.cli._display.console import brief
from tts_plugins.ledger import Ledger
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.types import Problem

# A guess: texts have 3 to 6 bytes a token, and templates write a role and two marks around each message.
BYTES_A_TOKEN, TEMPLATE = 4, 5


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of the estimate; None for what is unknown."""

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

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, `tokens` included."""
        return {**asdict(self), "tokens": self.tokens}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The three rows, and in words what was assumed and what the budget would cut."""

    model: str
    strategy: str
    verifier: str | None
    rows: dict[str, Estimate]
    budget: Budget | None
    room: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON; `room` is the number of candidates that surely fit into the budget."""
        return {
            "dry_run": True,
            "model": self.model,
            "strategy": self.strategy,
            "verifier": self.verifier,
            **{name: row.to_dict() for name, row in self.rows.items()},
            "budget": None if self.budget is None else self.budget.to_dict(),
            "room": self.room,
            "notes": list(self.notes),
        }

    def __rich__(self) -> Group:
        """Render the estimate for a terminal."""
        head = f"Nothing was sent. {self.model} with {self.strategy} would take:"
        return Group(Text(head), self._table(), *map(Text, self.notes))

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("", "calls", "prompt tokens", "completion tokens", "tokens", "cost"):
            table.add_column(heading, justify="left" if not heading else "right")
        for name, row in self.rows.items():
            figures = (row.calls, row.prompt_tokens, row.completion_tokens, row.tokens)
            table.add_row(
                name.replace("_", " "), *("unknown" if f is None else f"{f:,}" for f in figures), _cost(row.usd)
            )
        return table


def _cost(usd: float | None) -> str:
    return "unknown" if usd is None else money({"usd": usd}) or "$0"


async def plan(
    problem: Problem,
    model: OpenAICompatibleModel,
    strategy: Strategy,
    verifier: Verifier | SetVerifier | None,
    budget: Budget | None,
    attempts: int,
    price: str | None,
    base_url: str | None,
) -> Plan:
    """Estimate the least, the expected and the most that a solve takes.

    Raises:
        ConfigurationError: the budget could not hold over this model, as in the real run.
    """
    # The local model's own method would start its server.
    bound = await OpenAICompatibleModel.bound(model, problem)
    check_bounds(model, bound, Ledger(budget))
    extra = FREE if verifier is None else await verifier.bound(problem, bound.completion_tokens)
    counts = getattr(strategy, "calls", None)
    least, most = counts() if callable(counts) else (None, None)
    given = (0.0, 0.0) if isinstance(model, LocalModel) else None if price is None else price_of(price)
    known = await in_thread(pricing, given, model.name, base_url)
    prompt = min(_estimate(model, problem), bound.prompt_tokens)
    rows = _rows(least, most, prompt, bound, extra, max(1, model.batch), known)
    room = None if budget is None or most is None else _room(budget, _unit(bound, extra), most)
    notes = [*_assumptions(least, most, model, attempts), *_cuts(budget, room, most, rows["expected"])]
    return Plan(
        model=model.name, strategy=brief(strategy), verifier=None if verifier is None else verifier.name,
        rows=rows, budget=budget, room=room, notes=tuple(notes),
    )  # fmt: skip


def _estimate(model: OpenAICompatibleModel, problem: Problem) -> int:
    messages = model._prompt(problem)["messages"]
    text = sum(len(str(m.get("content", "")).encode("utf-8", "replace")) for m in messages)
    return math.ceil(text / BYTES_A_TOKEN) + TEMPLATE * (
        len(messages) + 1
    )  # the template opens the answer's turn as well


def _rows(
    least: int | None, most: int | None, prompt: int, bound: Bound, extra: Bound, batch: int, price: Price | None
) -> dict[str, Estimate]:
    if least is None or most is None:
        unknown = Estimate(calls=None, prompt_tokens=None, completion_tokens=None, usd=None)
        return {"minimum": unknown, "expected": unknown, "worst_case": unknown}
    middle = math.ceil((least + most) / 2)
    limit = bound.completion_tokens or 0

    def row(count: int, prompts: int, completion: int, more: Bound) -> Estimate:
        usd = None if price is None else price(prompts, completion * count)
        return Estimate(
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


def _assumptions(least: int | None, most: int | None, model: OpenAICompatibleModel, attempts: int) -> list[str]:
    if least is None:
        return ["The strategy does not say how many calls it makes."]
    half_way = "" if least == most else ", half way between the fewest and the most candidates"
    notes = [
        "Prompt tokens are guessed, since nothing is sent that could count them: one for every "
        f"{BYTES_A_TOKEN} bytes, and {TEMPLATE} a message for the chat template, which may add a system message too.",
        f"Expected: half of max_tokens={model.max_tokens} an answer{half_way}.",
        "Worst case: a token for every byte of the prompt and more than any known template, and all of max_tokens.",
    ]
    if attempts > 1:
        notes.append(f"A failed attempt may be charged as well; each call has up to {attempts} (--attempts).")
    return notes


def _cuts(budget: Budget | None, room: int | None, most: int | None, expected: Estimate) -> list[str]:
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
            due = _cost(value) if name == "usd" else f"{value:,}"
            notes.append(f"Budget: {name}={limit:,} is below the {due} expected, so it will end the search early.")
    if budget.seconds is not None:
        notes.append(
            f"Budget: after {budget.seconds:g} s the best answer so far is returned; time is not estimated here."
        )
    return notes
