"""What every section uses: the judge, ours and its bare twin, and the server that answers both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Unpack

from openai import AsyncOpenAI

from tts_plugins import BestOfN, Budget, Candidate, Problem, Result, Score, solve
from tts_plugins.budget import Bound
from tts_plugins.errors import VerifierError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.protocols import Run
from tts_plugins.testing.loopback import LoopbackServer, Options, seeded

MAX_TOKENS = 64
SAID: dict[str, Any] = {"model": "small", "temperature": 0.8, "max_tokens": MAX_TOKENS}
JUDGED: dict[str, Any] = {"model": "judge", "temperature": 0.0, "max_tokens": 4}
_NUMBER = re.compile(r"\d\.\d+")
_BYTES_A_TOKEN = 8  # longer candidates are shown to the judge as far as this goes, so that its prompt has a bound


def answers(body: dict[str, Any], index: int) -> str:
    """What the server says: a score to the judge's prompt, else a text of random length that depends on the seed."""
    if body.get("model") == "judge":
        return f"0.{len(str(body['messages'])) % 90 + 10}"
    return seeded(body, index)


def question(number: int) -> str:
    """A problem that no other number has."""
    return f"Problem {number}: a farmer has {number} eggs and sells half of them and then six more, how many are left?"


def rating(problem: str, solution: str) -> str:
    """The judge's prompt."""
    return f"Rate this solution from 0 to 1.\nProblem: {problem}\nSolution: {solution}\nAnswer with a number."


def parse(text: str | None) -> float:
    """The judge's number.

    Raises:
        VerifierError: there is none.
    """
    found = _NUMBER.search(text or "")
    if found is None:
        raise VerifierError(f"the judge gave no number: {text!r}")
    return float(found.group())


class Judge:
    """A model call for each candidate, made through the run, so that it is held, counted and traced."""

    name = "judge"

    def __init__(self, model: OpenAICompatibleModel) -> None:
        self._model = model

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """That of a prompt with a solution as long as it may be."""
        return await self._model.bound(Problem(rating(problem.text, "x" * (_BYTES_A_TOKEN * (tokens or 0)))))

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The judge's number."""
        shown = candidate.text[: _BYTES_A_TOKEN * MAX_TOKENS]
        reply = await run.generate(self._model, Problem(rating(candidate.problem.text, shown)))
        return Score(value=parse(reply.generations[0].text))


@dataclass(frozen=True)
class Stage:
    """A server in its own process, a client, and our models over that same client (and its connections)."""

    server: LoopbackServer
    client: AsyncOpenAI
    singles: OpenAICompatibleModel
    batched: OpenAICompatibleModel
    judge: Judge

    async def ours(self, number: int, *, batched: bool, n: int = 8) -> Result:
        """Best-of-n under a budget."""
        model, budget = self.batched if batched else self.singles, Budget(calls=4 * n, tokens=100_000)
        return await solve(
            question(number), model=model, strategy=BestOfN(n=n), verifier=self.judge, budget=budget, seed=number
        )

    async def bare(self, number: int, *, batched: bool, n: int = 8) -> tuple[float, str]:
        """The same requests and nothing else: the best score and its text."""
        asked, create = question(number), self.client.chat.completions.create
        messages: list[Any] = [{"role": "user", "content": asked}]

        async def judged(text: str | None) -> tuple[float, str]:
            content = rating(asked, (text or "")[: _BYTES_A_TOKEN * MAX_TOKENS])
            reply = await create(**JUDGED, messages=[{"role": "user", "content": content}])
            return parse(reply.choices[0].message.content), text or ""

        async def chain(seed: int) -> tuple[float, str]:
            reply = await create(**SAID, messages=messages, seed=seed)
            return await judged(reply.choices[0].message.content)

        if not batched:
            return max(await asyncio.gather(*(chain(1000 * number + i) for i in range(n))))
        reply = await create(**SAID, messages=messages, seed=number, n=n)
        return max(await asyncio.gather(*(judged(choice.message.content) for choice in reply.choices)))


@asynccontextmanager
async def stage(*, concurrency: int | None = 128, **options: Unpack[Options]) -> AsyncIterator[Stage]:
    """The server, started and warm; both ends are closed afterwards."""
    given: Options = {"reply": answers, "record": False, **options}
    with LoopbackServer(process=True, **given) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0, timeout=60.0) as client:
            keywords: dict[str, Any] = {"client": client, "concurrency": concurrency}
            yield Stage(
                server,
                client,
                OpenAICompatibleModel(**SAID, batch=1, **keywords),
                OpenAICompatibleModel(**SAID, **keywords),
                Judge(OpenAICompatibleModel(**JUDGED, **keywords)),
            )


Work = Callable[[int], Coroutine[Any, Any, object]]


async def paired(
    count: int, ours: Work, bare: Work, clock: Callable[[], float], *, warm: int = 2
) -> list[tuple[float, float]]:
    """What both take on that clock, one after the other in turns, `count` times; the `warm` first do not count."""
    taken: list[tuple[float, float]] = []
    for number in range(count + warm):
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = clock()
            await (ours, bare)[which](number)
            spent[which] = clock() - start
        taken.append((spent[0], spent[1]))
    return taken[warm:]
