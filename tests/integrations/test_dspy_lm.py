"""`ScaledLM`: a program scaled without touching it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from dspy.utils.callback import BaseCallback
from tts_plugins_dspy import Scaled, ScaledLM

from tests.dspy_models import aclose, close, language_model
from tts_plugins import BestOfN, Budget, Ledger
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.testing.loopback import LoopbackServer


def reply(body: dict[str, Any], index: int) -> str:
    return f"[[ ## reasoning ## ]]\nr{index}\n\n[[ ## answer ## ]]\n{index}\n\n[[ ## completed ## ]]"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


@pytest.fixture
def lm(server: LoopbackServer) -> Iterator[Any]:
    made = language_model(server)
    yield made
    close(made)


def latest(text: str) -> float:
    """A verifier of texts: the highest number wins."""
    return int(text.split("## ]]\n")[-1].split()[0]) / 100


def test_a_whole_program_is_scaled(server: LoopbackServer, lm: Any) -> None:
    ledger = Ledger(Budget(calls=100, tokens=100_000))
    scaled = ScaledLM(lm, strategy=BestOfN(n=3), verifier=latest, budget=ledger)
    program = dspy.ChainOfThought("question -> answer: int")
    with dspy.context(lm=scaled):
        assert program(question="?").answer == 2
        assert program(question="?").answer == 2 and server.counts.requests == 3, "the cache answers it again"
        assert program(question="another?").answer == 5
    assert ledger.usage.tokens == server.counts.tokens and ledger.usage.calls == 6
    assert len(program.predict.history) == 9 and not lm.kwargs["temperature"]


async def test_acall(server: LoopbackServer, lm: Any) -> None:
    with dspy.context(lm=ScaledLM(lm, n=3, verifier=latest)):
        assert (await dspy.ChainOfThought("question -> answer: int").acall(question="?")).answer == 2
    await aclose(lm)


def test_votes_on_the_last_field_of_either_adapter(server: LoopbackServer, lm: Any) -> None:
    program = dspy.ChainOfThought("question -> answer: int")
    server.configure(reply=lambda body, i: reply(body, i).replace(f"\n{i}\n", f"\n{7 if i % 3 else 1}\n"))
    with dspy.context(lm=ScaledLM(lm, n=3)):
        assert program(question="?").answer == 7
    server.configure(reply=lambda body, i: json.dumps({"reasoning": f"r{i}", "answer": 7 if i % 3 else 1}))
    with dspy.context(lm=ScaledLM(lm, n=3), adapter=dspy.JSONAdapter()):
        assert program(question="json?").answer == 7


def test_inside_a_scaled_program_it_has_samples_of_its_own(server: LoopbackServer, lm: Any) -> None:
    scaled = Scaled(dspy.ChainOfThought("question -> answer: int"), n=3)
    with dspy.context(lm=ScaledLM(lm, n=2, verifier=latest)), dspy.track_usage() as tracker:
        result = scaled.solve(question="?")
    reported = tracker.get_total_tokens()["openai/small"]
    assert server.counts.requests == 6 == result.usage.calls and result.usage.tokens == server.counts.tokens
    assert reported["prompt_tokens"] + reported["completion_tokens"] == server.counts.tokens


def test_copies_and_direct_calls(server: LoopbackServer, lm: Any) -> None:
    scaled = ScaledLM(lm, n=2, verifier=latest)
    other = scaled.copy(rollout_id=1, temperature=0.7)
    assert isinstance(other, ScaledLM) and other.kwargs["rollout_id"] == 1 and "rollout_id" not in scaled.kwargs
    scaled.callbacks.append(kept := BaseCallback())
    again = scaled.copy()
    again.callbacks.append(BaseCallback())
    assert scaled.callbacks == [kept] == again.callbacks[:1] and other.callbacks == [], "each has a list of its own"
    (first,), (second,) = scaled("hello"), other("hello")
    assert first != second and server.counts.requests == 4 and server.requests[-1].body["temperature"] == 0.7
    assert scaled.model == "openai/small"
    assert scaled.supports_response_schema == getattr(lm, "supports_response_schema", False)


def test_errors(lm: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a language model"):
        ScaledLM("openai/small")
    with pytest.raises(ConfigurationError, match="is a module, which judges predictions"):
        ScaledLM(lm, verifier=dspy.Predict("answer -> score: float"))
    with pytest.raises(ConfigurationError, match="cannot be saved"):
        ScaledLM(lm).dump_state()
    with pytest.raises(BudgetExhausted), dspy.context(lm=ScaledLM(lm, n=2, budget=Budget(tokens=5))):
        dspy.Predict("question -> answer")(question="?")


def test_it_shows_how_it_asks_and_names_settings_that_are_meant(lm: Any) -> None:
    assert repr(ScaledLM(lm, n=3, verifier=latest)) == (
        f"ScaledLM({lm.model!r}, strategy={BestOfN(n=3)!r}, verifier=latest)"
    )
    with pytest.raises(
        ConfigurationError, match=r"ScaledLM: 'temprature' is not a setting; did you mean 'temperature'"
    ):
        ScaledLM(lm, temprature=0.5)  # type: ignore[arg-type]
