"""What the DSPy integration must reach, measured: `python -m benchmarks.dspy [--short] [--json FILE]`.

"Bare" is the same requests sent at once through DSPy itself: 8 threads that call the same predictor with `rollout_id`s
of their own, each followed by the same function. Pairs are interleaved, and which of the two goes first alternates.
"""

from __future__ import annotations

import contextlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import dspy
from tts_plugins_dspy import Scaled

from benchmarks._rows import Row
from benchmarks._serving.paired_runs import N, Pair, command, tokens, turns, walls
from tts_plugins import BestOfN, Budget, Ledger
from tts_plugins.testing.loopback import LoopbackServer

ANSWER = "[[ ## answer ## ]]\nit is so\n\n[[ ## completed ## ]]"


def numbered(body: dict[str, Any], index: int) -> str:
    """An answer that no other request gets."""
    return f"[[ ## answer ## ]]\nit is {index}\n\n[[ ## completed ## ]]"


def check(prediction: Any) -> float:
    """A verifier of microseconds."""
    return (len(prediction.answer) % 7) / 7


def model_of(server: LoopbackServer, **settings: Any) -> Any:
    """A real client of the server; its own retries are off."""
    settings = {"max_tokens": 64, "num_retries": 0, "temperature": 1.0, "cache": False, **settings}
    return dspy.LM("openai/m", api_base=server.base_url, api_key="-", **settings)


def taken(pairs: int, latency: float) -> list[Pair]:
    """Seconds of ours and of bare, pair by pair."""
    host = LoopbackServer(reply=ANSWER, latency=latency, process=True, record=False)
    with host as server, ThreadPoolExecutor(N) as pool:
        program, lm = dspy.Predict("question -> answer"), model_of(server)
        scaled = Scaled(program, strategy=BestOfN(n=N), verifier=check, budget=Budget(calls=N))

        def sample(i: int) -> tuple[float, int]:
            return check(program(question="why?", config={"rollout_id": i})), i

        def bare() -> None:
            contexts = [copy_context() for _ in range(N)]  # threads know nothing of the configuration otherwise
            max(pool.map(lambda i: contexts[i].run(sample, i), range(N)))

        with dspy.context(lm=lm):
            pairs_taken = turns(pairs, lambda: scaled(question="why?"), bare)
        lm.close()
        return pairs_taken


def nested() -> Row:
    """Row 3: requests of a search inside a search, and of the same again."""
    with LoopbackServer(reply=numbered, indexing="arrival") as server:
        lm = model_of(server, cache=True)
        scaled = Scaled(Scaled(dspy.Predict("question -> answer"), n=3), n=3)
        with dspy.context(lm=lm):
            scaled(question="nested?")
            first = server.counts.requests
            scaled(question="nested?")
        lm.close()
        ours = (first, server.counts.requests - first)
    return Row(
        number=3, what="nested 3x3: requests; on replay", must="9; 0", ours="{}; {}".format(*ours), met=ours == (9, 0)
    )


def demos() -> Row:
    """Row 4: the demos that BootstrapFewShot finds."""

    def reply(body: dict[str, Any], index: int) -> str:
        return f"[[ ## answer ## ]]\n{str(body['messages'][-1]['content']).count('x')}\n\n[[ ## completed ## ]]"

    def right(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example.answer == prediction.answer)

    def found(module: Any) -> int:
        optimiser = dspy.BootstrapFewShot(metric=right, max_bootstrapped_demos=4, max_labeled_demos=0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (predictor,) = optimiser.compile(module, trainset=trainset).predictors()
        return len(predictor.demos)

    trainset = [dspy.Example(question="x" * i, answer=i).with_inputs("question") for i in range(1, 6)]
    with LoopbackServer(reply=reply) as server:
        lm = model_of(server)
        with dspy.context(lm=lm):
            bare = found(dspy.Predict("question -> answer: int"))
            ours = found(Scaled(dspy.Predict("question -> answer: int"), n=3))
        lm.close()
    return Row(
        number=4, what="BootstrapFewShot over the wrapped program: demos found", must=f"{bare}, as over the bare one",
        ours=str(ours), met=ours == bare > 0,
    )  # fmt: skip


def counted() -> Row:
    """Row 5: tokens in the ledger over tokens that the server counted, cached and not."""
    ratios = []
    for cached in (False, True):
        with LoopbackServer(reply=numbered, indexing="arrival") as server:
            account, lm = Ledger(Budget(tokens=1_000_000)), model_of(server, cache=cached)
            scaled = Scaled(dspy.ChainOfThought("question -> answer"), n=4, budget=account)
            server.configure(reply=lambda body, i: f"[[ ## reasoning ## ]]\nr\n\n{numbered(body, i)}")
            with dspy.context(lm=lm):
                for question in ("a?", "b?", "a?"):
                    scaled(question=question)
            ratios.append(account.spent.tokens / server.wait().tokens)
            lm.close()
    return tokens(5, "without and with DSPy's cache", ratios)


def measure(short: bool) -> list[Row]:
    """All rows."""
    dspy.configure_cache(enable_disk_cache=False)
    return [*walls(taken, "a predictor", "8 bare threads", short=short), nested(), demos(), counted()]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return command("dspy", __doc__, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
