"""A verifier that thinks first: a chain of checks, then the probability of Yes (GenRM, 2408.15240)."""

from __future__ import annotations

import re
from typing import Literal

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import once_made
from tts_plugins.answers import without_thoughts
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import LIMIT, make_key, problem_text, verification_messages
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._judge_replies import Unreadable, p_yes, top_logprobs, word_at
from tts_plugins.verifiers._memo import Once
from tts_plugins.verifiers._model_calls import Asker, shown, worst_text, worst_trouble


class GenerativeVerifier:
    """Scores a candidate by P(yes) after a verification chain of thought, averaged over `k` chains.

    Args:
        model: who verifies; a temperature of about 0.7 where `k` is above 1, and `max_tokens` for a whole chain.
        k: chains for each candidate.
        rubric: what else to check, in words.
        use_logprobs: read P(yes) from the alternatives of the verdict's word: "auto" where they are kept, True to
            insist, False to count the share of Yes.
        limit: bytes of a candidate that the model sees.
        name: as it appears in traces.

    A chain counts only with the line "Verdict KEY: Yes" or "No", once, with the key of this call. A chain without it
    is asked for once more. The feedback is the chain of a No, or else of a Yes.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        k: int = 4,
        rubric: str = "",
        use_logprobs: Literal["auto"] | bool = "auto",
        limit: int = LIMIT,
        name: str = "GenerativeVerifier",
    ) -> None:
        check_count(name, "k", k)
        check_count(name, "limit", limit, least=200)
        if use_logprobs not in ("auto", True, False):
            raise ConfigurationError(f"{name}: use_logprobs={use_logprobs!r} is not known; use 'auto', True or False")
        self.name, self.k, self.rubric, self.limit = name, k, rubric, limit
        self._logprobs = use_logprobs
        self._once = Once[Score]()
        self._asker = Asker(model, name, logprobs=use_logprobs is not False)

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name}, k={self.k})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Each chain, and each once more."""
        text = worst_text(tokens, self.limit)
        rubric = self.rubric + worst_trouble()
        messages = verification_messages(problem_text(problem), text, rubric=rubric, key="x" * 8, limit=self.limit)
        return await self._asker.bound([messages], times=2 * self.k)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The mean of P(yes); `details` has each chain's, and why some could not be read.

        Raises:
            VerifierError: half of the chains or more had no verdict.
        """
        text, problem = shown(candidate), problem_text(candidate.problem)
        if not text.strip():
            return Score(value=0.0, feedback="the candidate is empty")
        key = make_key(run.seed, self.name, problem, text)
        return (await self._once.get(run, key, lambda: self._ask(run, problem, text, key)))[0]

    async def _ask(self, run: Run, problem: str, text: str, key: str) -> Score:
        chains, troubles = await self._asker.ask_and_read(
            run,
            lambda trouble: verification_messages(
                problem,
                text,
                rubric=f"{self.rubric}\n{f'An earlier reply could not be used: {trouble}.' if trouble else ''}".strip(),
                key=key,
                limit=self.limit,
            ),
            lambda generation: (self._read(generation, key), generation.text),
            self.k,
        )
        values = [value for value, _ in chains]
        against = min(chains, key=lambda chain: chain[0])
        return Score(
            value=sum(values) / len(values),
            feedback=re.sub(rf"\s*Verdict {key}:.*", "", against[1], flags=re.IGNORECASE | re.DOTALL).strip(),
            details={"p_yes": values, "unread": troubles},
        )

    def _read(self, generation: Generation, key: str) -> float:
        pattern = rf"^[ \t>*#_]*verdict\s+{key}[*_]*\s*:[*_\s]*(?P<word>yes|no)\b"
        found = list(re.finditer(pattern, without_thoughts(generation.text), re.IGNORECASE | re.MULTILINE))
        words = {match["word"].lower() for match in found}
        if len(words) != 1:
            came = "two different verdicts" if words else "no line 'Verdict KEY: Yes' or 'No' with the key of this call"
            raise Unreadable(came, generation.text[-100:])
        drawn = 1.0 if words == {"yes"} else 0.0
        alternatives = top_logprobs(generation) if self._logprobs is not False else None
        if alternatives is not None:
            text = "".join(token[0][0] for token in alternatives)
            places = list(re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE))
            word = word_at(alternatives, places[-1].start("word")) if places else None
            expected = None if word is None else p_yes(word)
            if expected is not None:
                return expected
        if self._logprobs is True:
            raise Unreadable("its verdict has no log-probabilities; set logprobs=20 on the verifier's model")
        return drawn
