"""Process reward models behind vLLM's /pooling."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence

from tts_plugins._internal.http_limits import check_address, check_headers, check_value
from tts_plugins._internal.request_sent import holding
from tts_plugins._internal.secrets import cleaned, hidden, hidden_address, hidden_headers
from tts_plugins._internal.token_usage import prompt_count
from tts_plugins._internal.values import is_whole
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import ConfigurationError, MalformedResponse, TTSError, VerifierError
from tts_plugins.protocols import Run
from tts_plugins.selection import Aggregate
from tts_plugins.steps import By
from tts_plugins.types import Candidate, Generation, Problem, Reply, Score, Usage
from tts_plugins.verifiers.process._base import ProcessReward, Shown
from tts_plugins.verifiers.process._http_client import JSONClient
from tts_plugins.verifiers.process._reward_families import RewardFamily


class ProcessVerifierHTTP(ProcessReward):
    """Scores each step with a process reward model that vLLM serves (`vllm serve … --runner pooling`).

    Args:
        model: the server's name for it.
        base_url: the server's address, with or without /v1.
        family: "qwen" (Qwen2.5-Math-PRM: a row for each `<extra_0>`), "math-shepherd" (step tags "ки"), "token" (a
            raw reward for each token, read at line ends), or a `RewardFamily` of your own.
        aggregate: how step scores become one: which is best depends on the model, see `docs/judges.md`.
        by: how a text without steps is cut into them, see `tts_plugins.steps.split`.
        api_key: sent as a bearer token; none if left out.
        headers: sent with each request.
        price: US dollars per million tokens; your own server costs 0.
        timeout: seconds for one request.
        concurrency: requests in flight at most.
        name: as it appears in traces.

    A call's tokens are those that the server reports. Control tokens and separators inside a candidate's own text are
    taken out: they would be read as steps.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        family: str | RewardFamily = "qwen",
        aggregate: Aggregate = "last",
        by: By | re.Pattern[str] = "paragraph",
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        price: float = 0.0,
        timeout: float = 60.0,
        concurrency: int | None = 32,
        name: str = "ProcessVerifierHTTP",
    ) -> None:
        base_url, api_key, headers = hidden_address(base_url), hidden(api_key), hidden_headers(headers)
        super().__init__(name, family, aggregate, by)
        check_address(name, base_url)
        check_headers(name, headers)
        if api_key is not None:
            check_value(name, "api_key", api_key)
        if not timeout > 0 or not 0 <= price < math.inf:
            raise ConfigurationError(f"{name}: timeout={timeout!r} must be above 0 and price={price!r} at least 0")
        root = base_url.rstrip("/").removesuffix("/v1")
        keys = {"Authorization": hidden(f"Bearer {api_key}")} if api_key else {}
        self._model = _Pooling(model, root, {**keys, **headers}, price, timeout, Limits(concurrency=concurrency))

    def __repr__(self) -> str:
        return f"{self.name}({self._model.name})"

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._model.client.close()

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of one request with the whole solution."""
        return await self._model.bound(Problem(self._worst(problem, tokens)))

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return a score for each step, and their aggregate.

        Raises:
            VerifierError: the candidate has no steps, or the rows are not scores of its steps.
            ModelError: the server failed.
        """
        shown = self._shown(candidate)
        reply = await run.generate(self._model, Problem(shown.text))
        rows = reply.generations[0].output
        places = await self._places(shown, len(rows)) if self.family.rows == "token" else None
        return self._score(shown, rows, places)

    async def _places(self, shown: Shown, rows: int) -> list[int]:
        """Return the row of each step's last token, by the server's own tokeniser."""
        beginnings = [shown.text[:end] for end in shown.ends]
        counts = await asyncio.gather(*(self._model.count(text) for text in [*beginnings, shown.text]))
        if counts[-1] != rows or any(not 0 < count <= rows for count in counts):
            raise VerifierError(
                f"{self.name}: {rows} rows for a text of {counts[-1]} tokens; is rows='token' right for "
                f"{self._model.name}?"
            )
        return [count - 1 for count in counts[:-1]]


class _Pooling:
    """/pooling as a `Model`, so that it is held to the budget, retried and traced as every call is."""

    batch = 1

    def __init__(
        self, name: str, root: str, headers: Mapping[str, str], price: float, timeout: float, limits: Limits
    ) -> None:
        self.name, self.limits = name, limits
        self._price, self.client = price, JSONClient(root, headers, timeout, name)

    async def bound(self, problem: Problem) -> Bound:
        """Return the text's bytes: a tokeniser makes at most one token of each, and a few for its beginning and end."""
        tokens = len(problem.text.encode("utf-8", "replace")) + 8
        return Bound(prompt_tokens=tokens, usd=tokens * self._price / 1e6)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        holding(self)  # the client tells when it leaves
        try:
            return await self._generated(problem)
        except TTSError as error:  # its text and the variables below may hold what the server wrote
            raise cleaned(error, self.client.secrets) from error.__cause__

    async def _generated(self, problem: Problem) -> Reply:
        body = {"model": self.name, "input": [problem.text], "task": "token_classify"}
        answer = await self.client.post("/pooling", body)
        data = answer.get("data")
        rows = data[0].get("data") if isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict) else None
        if not isinstance(rows, list):
            raise MalformedResponse(f"{self.name}: /pooling answered without data[0].data: {str(answer)[:120]}")
        tokens = prompt_count(answer.get("usage"))
        used = None  # charged at the bound
        if tokens is not None:
            used = Usage(calls=1, requests=1, prompt_tokens=tokens, usd=tokens * self._price / 1e6)
        return Reply(generations=(Generation(text=f"{len(rows)} rows", output=rows),), usage=used)

    async def count(self, text: str) -> int:
        """Return the tokens of a text as the server counts them, which costs nothing."""
        answer = await self.client.post("/tokenize", {"model": self.name, "prompt": text})
        count = answer.get("count", len(answer.get("tokens", ())))
        if not is_whole(count):
            raise MalformedResponse(f"{self.name}: /tokenize answered without a count: {str(answer)[:120]}")
        return count
