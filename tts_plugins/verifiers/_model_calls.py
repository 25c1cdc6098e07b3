"""How a verifier asks its model: through the run, in the form of a schema where that is honoured, with one repair."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, RequestRefused, VerifierError
from tts_plugins.prompts import LIMIT, Messages
from tts_plugins.protocols import Model, Run
from tts_plugins.types import REQUEST, Candidate, Generation, Problem
from tts_plugins.verifiers._judge_replies import Unreadable, excerpt

T = TypeVar("T")

# A candidate of so many tokens has at most about this many bytes; what exceeds it is still held to the budget.
_BYTES_A_TOKEN, _SPARE = 6, 256
_FORM = re.compile(r"response_format|json_schema|schema|grammar|logprobs", re.IGNORECASE)
_TROUBLE = "x" * 240  # room for the reason in a repair's prompt


class Asker:
    """Asks one model on behalf of one verifier.

    Args:
        model: who judges.
        who: the verifier's name, for errors.
        schema: the form of a reply, for servers that honour one.
        logprobs: whether to ask for the alternatives of each token.
    """

    def __init__(
        self, model: Model, who: str, *, schema: Mapping[str, Any] | None = None, logprobs: bool = False
    ) -> None:
        if not isinstance(model, Model):
            raise ConfigurationError(
                f"{who}: model={model!r} is not a model; pass an OpenAICompatibleModel(…) or another"
            )
        self.model, self.who = model, who
        self._schema, self._logprobs = schema, logprobs
        self._formless = False

    async def bound(self, messages: Sequence[Messages], *, times: int = 1) -> Bound:
        """The worst that asking each of these once can cost, `times` over."""
        bounds = [await self.model.bound(self._problem(m, None)) or FREE for m in messages]
        return total([b for b in bounds for _ in range(times)])

    async def ask(
        self, run: Run, messages: Messages, n: int = 1, schema: Mapping[str, Any] | None = None
    ) -> list[Generation]:
        """`n` replies to the same messages.

        Raises:
            BudgetExhausted, DeadlineExceeded, ModelError: they could not be had.
        """
        got = list[Generation]()
        while len(got) < n:
            problem = self._problem(messages, schema)
            try:
                reply = await run.generate(self.model, problem, n - len(got))
            except RequestRefused as error:
                if REQUEST not in problem.metadata or not _FORM.search(str(error)):
                    raise
                self._formless = True  # the server knows no schemas: its replies are read with the same care
                run.note("verifier", verifier=self.who, formless=str(error)[:200])
                continue
            got += reply.generations
        return got[:n]

    async def ask_and_read(
        self,
        run: Run,
        messages: Callable[[str], Messages],
        read: Callable[[Generation], T],
        n: int = 1,
        schema: Mapping[str, Any] | None = None,
    ) -> tuple[list[T], list[str]]:
        """Return `n` replies, read; each that cannot be read is requested once more, with the reason.

        Args:
            messages: what to ask; its argument is the trouble with an earlier reply, or empty.
            read: raises `Unreadable` for what is not a verdict.

        Returns:
            What could be read, and why the others could not.

        Raises:
            VerifierError: half of them or more could not be read.
        """
        values, troubles = list[T](), list[str]()
        for generation in await self.ask(run, messages(""), n, schema):
            try:
                values.append(read(generation))
                continue
            except Unreadable as error:
                first = error
            (again,) = await self.ask(run, messages(first.reason[: len(_TROUBLE)]), 1, schema)
            try:
                values.append(read(again))
            except Unreadable as second:
                troubles.append(f"{_said(again)}: {second}; before that: {first}")
        if len(values) * 2 <= n:
            raise VerifierError(f"{self.who}: no verdict could be read from {self.model.name}, {troubles[0]}")
        return values, troubles

    def _problem(self, messages: Messages, schema: Mapping[str, Any] | None) -> Problem:
        fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 20} if self._logprobs else {}
        if (form := schema or self._schema) is not None:
            named = {"name": "verdict", "strict": True, "schema": dict(form)}
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        return Problem(messages, metadata={} if self._formless or not fields else {REQUEST: fields})


def total(bounds: Sequence[Bound]) -> Bound:
    """Several bounds together; unbounded or unpriced where one of them is."""
    completion = [b.completion_tokens for b in bounds]
    usd = [b.usd for b in bounds]
    return Bound(
        prompt_tokens=sum(b.prompt_tokens for b in bounds),
        completion_tokens=None if None in completion else sum(c or 0 for c in completion),
        usd=None if None in usd else sum(u or 0.0 for u in usd),
        calls=sum(b.calls for b in bounds),
    )


def worst_text(tokens: int | None, limit: int = LIMIT) -> str:
    """A text as long as a candidate of up to so many tokens can be in a prompt."""
    return "x" * (limit if tokens is None else min(limit, _BYTES_A_TOKEN * tokens + _SPARE))


def worst_trouble() -> str:
    """A reason for a repair as long as one can be."""
    return _TROUBLE


def shown(candidate: Candidate) -> str:
    """What a judge is shown of a candidate: its text; its native object where it has none."""
    if candidate.text.strip() or candidate.output is None:
        return candidate.text
    return str(candidate.output)


def _said(generation: Generation) -> str:
    cut = "; it was cut, so raise max_tokens of the judge's model" if generation.finish_reason == "length" else ""
    return f"which said {excerpt(generation.text)}{cut}"
