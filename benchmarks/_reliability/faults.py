"""Every fault of the loopback server, met by every strategy through every adapter.

Half of the requests meet the fault. A solve has `SECONDS`; half a second later at most it has to end with the server's
own answer, or with an error of this package or of what it wraps: of the client's classes, or the chain's own exception
with the note that all candidates failed. The verifiers accept whatever they see, so that nothing hides behind them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._rows import Row
from tests.serving import Serving, serving
from tts_plugins import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    ParticleFilter,
    RecursiveAggregation,
    Revision,
    SelfConsistency,
    TreeSearch,
    solve,
)
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import Fault, LoopbackServer

SECONDS, GRACE = 2.0, 0.5
FAULTS: Mapping[str, Fault] = {
    "400": Fault.status(400), "429": Fault.status(429, retry_after=0.1), "500": Fault.status(500),
    "503 charged": Fault.status(503, charged=True), "truncated JSON": Fault.truncated_json(), "HTML": Fault.html(),
    "empty choices": Fault.empty_choices(), "null content": Fault.null_content(),
    "missing message": Fault.missing_message(), "no usage": Fault.no_usage(), "negative usage": Fault.negative_usage(),
    "trickle": Fault.slow_trickle(0.02), "reset": Fault.reset(), "reset later": Fault.reset(20), "hang": Fault.hang(),
    "closed": Fault.close_mid_stream(), "partial choices": Fault.partial_choices(),
}  # fmt: skip
STRATEGIES: Mapping[str, Any] = {
    "best-of-n": BestOfN(n=4), "self-consistency": SelfConsistency(n=4), "revision": Revision(chains=2, rounds=2),
    "recursive-aggregation": RecursiveAggregation(population=4, loops=2, subset=2), "tree-search": TreeSearch(n=4),
    "beam-search": BeamSearch(n=4, beam_width=2, max_steps=3), "dvts": DVTS(n=4, beam_width=2, max_steps=3),
    "particle-filter": ParticleFilter(n=4, max_steps=3),
}  # fmt: skip
_RIGHT = "The answer is 4."
_CLIENTS = ("tts_plugins", "openai", "langchain", "dspy", "litellm", "lm15")
Ask = Callable[[Any, str], Awaitable[str]]


def reply(body: Any, index: int) -> str:
    """The one right answer, in the form that is asked for."""
    if "[[ ## answer ## ]]" in str(body.get("messages")):
        return f"[[ ## answer ## ]]\n{_RIGHT}\n\n[[ ## completed ## ]]"
    return _RIGHT


def rows(short: bool) -> list[Row]:
    """A row for each adapter."""
    faults = dict(list(FAULTS.items())[::6]) if short else FAULTS
    seen: dict[str, Counter[str]] = {}
    bad: dict[str, list[str]] = {}
    for name, fault in faults.items():
        asyncio.run(_meet(name, fault, list(STRATEGIES)[:2] if short else list(STRATEGIES), seen, bad))
    out = []
    for adapter, counts in seen.items():
        ours = f"{counts['hang']}; {counts['foreign']}; {counts['wrong']} of {counts.total()}"
        out.append(
            Row(number=0, what=f"{len(faults)} faults x strategies, {adapter}: hangs; foreign errors; wrong answers",
                must="0; 0; 0", ours=ours, met=not bad[adapter],
                figures={"counts": dict(counts), "bad": bad[adapter]})
        )  # fmt: skip
    return out


async def _meet(
    name: str, fault: Fault, strategies: list[str], seen: dict[str, Counter[str]], bad: dict[str, list[str]]
) -> None:
    with (
        LoopbackServer(reply=reply, faults=Fault.every(2, fault), record=False) as upstream,
        tempfile.TemporaryDirectory() as folder,
        _proxy(upstream, folder) as proxy,
    ):
        asks, closing = await _adapters(upstream, proxy)
        for adapter, ask in asks.items():
            for strategy in strategies:
                found = await _one(ask, strategy)
                kind = found.partition(":")[0]
                if kind == "refused":
                    continue  # this adapter has no such strategy, and says so
                seen.setdefault(adapter, Counter())[kind] += 1
                bad.setdefault(adapter, [])
                if kind not in ("answer", "error"):
                    bad[adapter].append(f"{name}, {strategy}: {found}")
        for close in closing:
            await close()


async def _one(ask: Ask, strategy: str) -> str:
    start = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS * 5):
            text = await ask(STRATEGIES[strategy], strategy)
        found = "answer" if _RIGHT in text else f"wrong: {text[:80]}"
    except ConfigurationError as error:
        found = f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - what it is, is what is measured
        known = _original(error) or any(kind.__module__.startswith(_CLIENTS) for kind in type(error).__mro__)
        found = f"{'error' if known else 'foreign'}: {type(error).__module__}.{type(error).__name__}: {str(error)[:80]}"
    late = time.monotonic() - start
    return f"hang: {late:.1f} s, {found}" if late > SECONDS + GRACE else found


def _original(error: Exception) -> bool:
    """Whether it is what the wrapped chain itself raised for every candidate, with the note that says so."""
    return isinstance(error.__cause__, AllCandidatesFailed) and any(
        str(error.__cause__) in note for note in getattr(error, "__notes__", ())
    )


def _checked(problem: Any, candidate: Any) -> Any:
    return [0.9] * max(1, len(candidate.steps))


async def _adapters(
    upstream: LoopbackServer, proxy: Serving
) -> tuple[dict[str, Ask], list[Callable[[], Awaitable[None]]]]:
    warnings.simplefilter("ignore")
    import dspy
    import tts_plugins_dspy
    import tts_plugins_langchain
    import tts_plugins_openai
    from langchain_openai import ChatOpenAI
    from openai import AsyncOpenAI

    budget = Budget(seconds=SECONDS)
    model = OpenAICompatibleModel("loopback", base_url=upstream.base_url, api_key="-", max_tokens=64, temperature=0.8)
    client = AsyncOpenAI(base_url=upstream.base_url, api_key="-")
    chat = ChatOpenAI(model="loopback", base_url=upstream.base_url, api_key="-", max_retries=0, max_tokens=64)
    lm = dspy.LM("openai/loopback", api_base=upstream.base_url, api_key="-", cache=False, num_retries=0)
    asked = {"model": "loopback", "messages": [{"role": "user", "content": "2 + 2?"}], "max_tokens": 64}

    async def engine(strategy: Any, name: str) -> str:
        return (await solve("2 + 2?", model=model, strategy=strategy, verifier=_checked, budget=budget)).text

    async def by_openai(strategy: Any, name: str) -> str:
        scaled = tts_plugins_openai.scale(client, strategy=strategy, verifier=lambda message: 0.9, budget=budget)
        return str((await scaled.chat.completions.create(**asked)).choices[0].message.content)

    async def by_langchain(strategy: Any, name: str) -> str:
        scaled = tts_plugins_langchain.scale(chat, strategy=strategy, verifier=lambda message: 0.9, budget=budget)
        return str((await scaled.ainvoke("2 + 2?")).content)

    async def by_dspy(strategy: Any, name: str) -> str:
        with dspy.context(lm=lm):
            scaled = tts_plugins_dspy.Scaled(
                dspy.Predict("question -> answer"), strategy=strategy, verifier=lambda prediction: 0.9, budget=budget
            )
            return str((await scaled.acall(question="2 + 2?")).answer)

    async def by_proxy(strategy: Any, name: str) -> str:
        body = {**asked, "model": f"{name}/loopback"}
        status, answer, _ = await asyncio.to_thread(proxy.post, "/v1/chat/completions", body)
        if status != 200:
            raise _Answered(f"{status} {answer['error']['code']}")
        return str(answer["choices"][0]["message"]["content"])

    asks = {"engine": engine, "OpenAI": by_openai, "LangChain": by_langchain, "DSPy": by_dspy, "proxy": by_proxy}
    return asks, [client.close, model.aclose]


class _Answered(Exception):
    """An error in OpenAI's form, which is what a proxy has instead of exceptions."""

    __module__ = "openai"


def _proxy(upstream: LoopbackServer, folder: str) -> Any:
    lines = []
    for name, strategy in STRATEGIES.items():
        fields = ", ".join(f"{key} = {_toml(value)}" for key, value in strategy.to_dict().items() if value is not None)
        lines.append(f"[profiles.{name}]\nstrategy = {{ {fields} }}\nverifier = 'tests.serving_checks:step_scores'\n")
        lines.append(f"budget = {{ seconds = {SECONDS} }}\n")
    (Path(folder) / "tts-plugins.toml").write_text("".join(lines))
    return serving(base_url=upstream.base_url, directory=folder, view=False)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)
