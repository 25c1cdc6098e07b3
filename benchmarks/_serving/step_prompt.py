"""The prompt that asks for one step in words, in two wordings: does the embedded model end with the answer as asked?"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable, Sequence

from tts_plugins import Problem, SelfConsistency, solve
from tts_plugins.answers import extract
from tts_plugins.metrics import paired_bootstrap
from tts_plugins.models import LocalModel
from tts_plugins.models._chat.step_format import step_request

SAMPLES = 8
FORM = re.compile(r"\banswer:\s*[«\"']?\s*\S", re.IGNORECASE)
WORDINGS: dict[str, Callable[[str], str]] = {  # each makes its own of the request that is in use
    "straight quotes": lambda request: request,
    "guillemets": lambda request: request.replace('"Answer: …"', "«Answer: …»"),
}


def posed(index: int) -> tuple[Problem, str, list[str]]:
    """A sum of two numbers, its answer, and the steps so far: none, or the sum itself, by turns."""
    rng = random.Random(index)
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return Problem(f"What is {a} + {b}?"), str(a + b), [] if index % 2 else [f"{a} + {b} = {a + b}."]


async def step_prompt(problems: int) -> None:
    """Print, for each wording, how many samples end in the form, how many are right, and their tokens."""
    with LocalModel(max_tokens=48, slots=SAMPLES, batch=SAMPLES, context=512, threads=1) as model:
        rows = {name: [await _asked(model, change, i) for i in range(problems)] for name, change in WORDINGS.items()}
        await model.aclose()
    print(f"one step in words, {problems} sums, {SAMPLES} samples of each; differences paired by problem (95 %)")
    ours, theirs = rows.values()
    for place, what in enumerate(("in the form", "right", "tokens")):
        a, b = ([row[place] for row in each] for each in (ours, theirs))
        e = paired_bootstrap([[x] for x in a], [[x] for x in b])
        means = ", ".join(f"{name} {statistics.fmean(x):.3f}" for name, x in zip(WORDINGS, (a, b), strict=True))
        print(f"  {what}: {means}; difference {e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})")


async def _asked(model: LocalModel, change: Callable[[str], str], index: int) -> tuple[float, float, float]:
    problem, answer, steps = posed(index)
    turns = [*problem.messages, {"role": "user", "content": change(step_request(steps, "\n\n", whole=False))}]
    result = await solve(Problem(turns), model=model, strategy=SelfConsistency(n=SAMPLES), seed=index)
    texts = [c.text for c in result.candidates]
    right = _share(texts, lambda text: extract(text) == answer)
    return _share(texts, FORM.search), right, result.usage.completion_tokens / SAMPLES


def _share(texts: Sequence[str], test: Callable[[str], object]) -> float:
    return statistics.fmean(bool(test(text)) for text in texts)
