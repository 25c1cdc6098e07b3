"""From rollouts to a choice on the real engine: LocalModel writes, LocalEmbeddingModel reads."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from tts_plugins import BestOfN, Budget, Candidate, Ledger, Problem, solve
from tts_plugins.bench.rollouts import make_rollouts
from tts_plugins.models import LocalEmbeddingModel, LocalModel, StepSettings
from tts_plugins.verifiers import LearnedVerifier

ROLES = ("user", "assistant")
pytestmark = pytest.mark.engine


def even(problem: Problem, candidate: Candidate) -> bool:
    """A grade that this model meets about half the time, whatever it writes."""
    return len(candidate.text) % 2 == 0


def chat(a: int, b: int) -> list[dict[str, str]]:
    """Two lines, the second with the marker of an answer, so that a solution ends."""
    shown = [("2 + 3?", "add 3 to 2\nAnswer: 5"), ("6 + 1?", "add 1 to 6\nAnswer: 7")]
    turns = [{"role": role, "content": text} for pair in shown for role, text in zip(ROLES, pair, strict=True)]
    return [*turns, {"role": "user", "content": f"{a} + {b}?"}]


async def test_a_verifier_of_the_embedded_model_s_own(tmp_path: Path) -> None:
    writer = LocalModel(
        temperature=1.0, max_tokens=24, context=256, slots=4, logprobs=True,
        steps=StepSettings(by="line", max_tokens=12),
    )  # fmt: skip
    embedder = LocalEmbeddingModel(context=256, slots=2)
    problems = [Problem(chat(i, 2), id=str(i)) for i in range(4, 10)]
    try:
        pool = await make_rollouts(
            problems, model=writer, path=tmp_path / "r.jsonl", grade=even, solutions=4, rollouts=2, max_steps=3,
            concurrency=1, ledger=Ledger(Budget(calls=1000)),
        )  # fmt: skip
        verifier = await LearnedVerifier.fit(pool, embedder, by="line")
        verifier.save(tmp_path / "v.npz")
        again = LearnedVerifier.load(tmp_path / "v.npz", embedder, by="line")
        result = await solve(problems[0], model=writer, verifier=again, strategy=BestOfN(n=2), seed=1)
    finally:
        await writer.aclose()
        await embedder.aclose()
    assert again.head.embedding == "SmolLM2-135M-Instruct, last" and again.head.logprobs and again.head.size == 576
    assert result.score == max(c.score or 0 for c in result.candidates)
    assert all(0 <= s <= 1 for c in result.candidates for s in c.step_scores)
    used = result.usage.by_role["verifier"]
    assert used.requests == 2 and used.prompt_tokens > 0 and used.exact
