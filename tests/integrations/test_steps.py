"""Single steps from real servers on loopback: ones that imitate llama.cpp, vLLM, Mistral and OpenAI, and llama.cpp."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.imitations import STEPS, Body, ModelOf, asked, chatty, goes_on, llama, mistral, vllm
from tts_plugins import BeamSearch, Budget, Candidate, Problem, Revision, Scored, Step, solve
from tts_plugins._internal.token_usage import without
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import LocalModel, OpenAICompatibleModel, StepSettings
from tts_plugins.models._chat.step_format import Said, read_step
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import CallableVerifier

pytestmark = pytest.mark.usefixtures("transport")
EVEN = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True, name="even")
BEAM = BeamSearch(n=4, beam_width=2)


@pytest.mark.parametrize(
    ("reply", "turn", "way", "probes"),
    [
        (llama, "any", "plain", 1),
        (vllm, "any", "vllm", 2),
        (mistral, "prefix", "prefix", 2),
        (chatty, "refused", "prompt", 2),
        (chatty, "any", "prompt", 3),
    ],
    ids=["llama.cpp", "vllm", "mistral", "refused", "new turn"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_way_is_found_once_and_gives_clean_steps(
    model_of: ModelOf, reply: Callable[[Body, int], Reply], turn: Any, way: str, probes: int, stream: bool
) -> None:
    with LoopbackServer(reply=reply, assistant_turn=turn, tokenizer=True) as server:
        model = model_of(server, stream=stream)
        result = await solve(
            "Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, budget=Budget(tokens=20_000), seed=1
        )
        texts = [re.sub(r"^Step \d: ", "", s.text) for s in result.best.steps]
        assert texts == STEPS and result.answer == "12" and result.best.finished
        assert model._way == way
        assert result.usage.overshoot == 0 and result.usage.exact
        probing = [r for r in server.requests if any("k7q2" in text for text in asked(r.body))]
        assert len(probing) == probes
        first = len(server.requests)
        await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=2)
        assert not [r for r in server.requests[first:] if "k7q2" in str(r.body)]
        if turn == "refused":
            turns = [r for r in server.requests if r.body["messages"][-1]["role"] == "assistant"]
            assert len(turns) == probes
        await model.aclose()


async def test_the_probe_is_paid_for_from_the_budget(model_of: ModelOf) -> None:
    with LoopbackServer(reply=llama) as server:
        result = await solve(
            "Add", model=model_of(server), strategy=BeamSearch(n=1, beam_width=1), verifier=EVEN, budget=Budget(calls=1)
        )
        assert result.usage.calls == 1 and result.stopped == "budget" and len(result.best.steps) == 1
        assert len(server.requests) == 1


async def test_a_known_way_and_openai_are_not_probed(model_of: ModelOf) -> None:
    with LoopbackServer(reply=llama) as server:
        model = model_of(server, steps=StepSettings(way="plain"))
        await solve("Add", model=model, strategy=BEAM, verifier=EVEN)
        assert not [r for r in server.requests if "k7q2" in str(r.body)]
    assert OpenAICompatibleModel("gpt-x", api_key="-")._way == "prompt"


async def test_vllm_says_for_certain_where_it_ended(model_of: ModelOf) -> None:
    with LoopbackServer(reply=lambda b, i: Reply("All there is.", tells_stop=True)) as server:
        result = await solve("Add", model=model_of(server), strategy=BeamSearch(n=2, beam_width=2), verifier=EVEN)
        assert result.best.finished and result.usage.calls == 2  # no empty continuation has to be asked for


async def test_an_empty_continuation_may_come_as_null(model_of: ModelOf) -> None:
    def null(body: Body, index: int) -> Reply:
        return Reply(None) if body["messages"][-1]["role"] == "assistant" else Reply("One.\n\nTwo.")

    with LoopbackServer(reply=null) as server:
        model = model_of(server, steps=StepSettings(way="plain"))
        result = await solve("Add", model=model, strategy=BeamSearch(n=2, beam_width=2), verifier=EVEN)
        assert result.text == "One." and result.best.finished and len(server.requests) == 2


async def test_a_step_cut_by_its_limit_is_truncated(model_of: ModelOf) -> None:
    with LoopbackServer(reply="one two three four five six") as server:
        model = model_of(server, steps=StepSettings(max_tokens=3))
        reply = await model.expand(Candidate(Problem("Add")), [1])
        assert reply.generations[0].finish_reason == "length" and server.requests[0].body["max_tokens"] == 3
        bound = await model.step_bound(Candidate(Problem("Add")))
        assert bound is not None and bound.completion_tokens == 3
        later = await model.step_bound(Candidate(Problem("Add")), 2)
        assert later is not None and later.prompt_tokens == bound.prompt_tokens + 6


async def test_a_server_that_refuses_stop_is_cut_on_this_side(model_of: ModelOf) -> None:
    with LoopbackServer(reply=llama, refuses=["stop"]) as server:
        result = await solve("Add", model=model_of(server), strategy=BEAM, verifier=EVEN, seed=1)
        assert [s.text for s in result.best.steps] == STEPS
        assert sum("stop" in r.body for r in server.requests) <= 4  # those that were sent before the first answer


async def test_a_template_that_trims_the_prefix_is_found_out(model_of: ModelOf) -> None:
    def trims(body: Body, index: int) -> Reply:
        more = goes_on(body)
        leads = body["messages"][-1]["role"] == "assistant" and "k7q2" not in asked(body)[-1]
        return Reply("\n\n" + more if leads and more else more, tells_stop=True)

    with LoopbackServer(reply=trims) as server:
        model = model_of(server, steps=StepSettings(way="vllm"))
        result = await solve("Add", model=model, strategy=BEAM, verifier=EVEN, seed=1)
        assert [s.text for s in result.best.steps] == STEPS


async def test_a_step_that_repeats_earlier_ones_is_refused(model_of: ModelOf) -> None:
    with LoopbackServer(reply="Take 3.") as server:
        model = model_of(server, steps=StepSettings(way="prompt"))
        result = await solve("Add", model=model, strategy=BEAM, verifier=EVEN, seed=1)
        assert len(result.best.steps) == 1 and not result.best.finished
        assert any("has already" in str(e.get("error")) for e in result.trace)


async def test_whole_solutions_are_cut_and_grown_again_from_a_prefix(model_of: ModelOf) -> None:
    seen: list[str] = []

    def whole(body: Body, index: int) -> str:
        seen.append(asked(body)[-1])
        return "\n\n".join(STEPS)

    with LoopbackServer(reply=whole) as server:
        model = model_of(server, steps=StepSettings(way="whole"))
        result = await solve("Add", model=model, strategy=BeamSearch(n=2, beam_width=2), verifier=EVEN)
        assert [s.text for s in result.best.steps] == STEPS and result.best.finished
        assert any("word for word:\n\nTake 3.\n\nAdd 4" in text for text in seen)
        assert not any("stop" in r.body for r in server.requests)


async def test_a_text_without_steps_is_cut_before_it_is_continued(model_of: ModelOf) -> None:
    with LoopbackServer(reply=llama) as server:
        model = model_of(server, steps=StepSettings(way="plain"))
        reply = await model.expand(Candidate(Problem("Add"), text="Take 3.\n\nAdd 4 to get 7."), [1])
        assert reply.generations[0].text == "Add 5 to get 12."


@pytest.mark.parametrize(
    ("settings", "said", "stops", "earlier", "expected"),
    [
        (StepSettings(), Said(text="a\n\nb", finish="stop"), ["\n\n"], (), ("a", "step")),
        (StepSettings(), Said(text="a\n\n", finish="stop"), [], None, ("a", "step")),
        (StepSettings(), Said(text="a", finish="stop"), [], None, ("a", "stop")),
        (StepSettings(), Said(text="a", finish="stop"), ["\n\n"], (), ("a", "step")),
        (StepSettings(), Said(text="", finish="stop"), ["\n\n"], (), ("", "stop")),
        (StepSettings(), Said(text=" \n ", finish="stop"), ["\n\n"], (), ("", "stop")),
        (StepSettings(), Said(text="a", finish="stop", stop_reason=None), ["\n\n"], None, ("a", "stop")),
        (StepSettings(), Said(text="a", finish="stop", stop_reason="END"), ["\n\n"], None, ("a", "stop")),
        (StepSettings(), Said(text="a", finish="length"), ["\n\n"], (), ("a", "length")),
        (StepSettings(), Said(text="a", finish="content_filter"), ["\n\n"], (), ("a", "content_filter")),
        (StepSettings(by="line"), Said(text="a\nb", finish="stop"), [], None, ("a", "step")),
        (StepSettings(by="numbered"), Said(text="1. a\n2. b", finish="stop"), [], None, ("1. a", "step")),
        (StepSettings(by=re.compile(r";")), Said(text="a;b", finish="stop"), [], None, ("a", "step")),
        (StepSettings(by="tokens", max_tokens=4), Said(text="a b", finish="length"), [], None, ("a b", "step")),
        (StepSettings(by="tokens", max_tokens=4), Said(text="a b", finish="stop"), [], None, ("a b", "stop")),
        (StepSettings(), Said(text="DONE", finish="stop"), ["\n\n"], ("a",), ("", "stop")),
        (StepSettings(), Said(text="Step 1: A\n\nb", finish="stop"), [], ("a",), ("b", "step")),
        (StepSettings(), Said(text="a", finish="stop"), [], (), ("a", "step")),
        (StepSettings(), Said(text="a", finish="length"), [], (), ("a", "length")),
        (StepSettings(), Said(text="a\n\nb\n\nc", finish="stop"), [], ("a",), ("b", "step")),
        (StepSettings(), Said(text="2. A", finish="stop"), ["\n\n"], ("a",), ("", "repeated")),
    ],
)  # fmt: skip
def test_what_a_reply_means(
    settings: StepSettings, said: Said, stops: Sequence[str], earlier: Sequence[str] | None, expected: tuple[str, str]
) -> None:
    assert read_step(settings, said, stops, earlier) == expected


def test_exactly_the_prefix_is_taken_off() -> None:
    assert without("a\n\n", "a\n\nb") == "b" and without("a\n\n", "a") == "" and without("a\n\n", "ba\n\n") == "ba\n\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": "word"}, "by='word'"),
        ({"by": re.compile("x*")}, "matches the empty text"),
        ({"way": "magic"}, "way='magic'"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"by": "tokens"}, "needs max_tokens"),
        ({"by": "tokens", "max_tokens": 3, "way": "prompt"}, "cannot be requested in a prompt"),
    ],
)
def test_bad_step_settings(settings: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        StepSettings(**settings)


async def test_revision_sends_attempts_and_feedback_as_turns(model_of: ModelOf) -> None:
    def improves(body: Body, index: int) -> str:
        return f"Answer: {sum(m['role'] == 'assistant' for m in body['messages'])}"

    judge = CallableVerifier(lambda p, c: (int(c.answer or 0) / 10, f"{c.answer} is low"), inline=True)
    with LoopbackServer(reply=improves) as server:
        result = await solve(
            "Go up", model=model_of(server, system="Be brief."), strategy=Revision(chains=2, rounds=3), verifier=judge,
            budget=Budget(tokens=20_000),
        )  # fmt: skip
        assert result.answer == "2" and result.usage.calls == 6
        longest = max((r.body["messages"] for r in server.requests), key=len)
        assert [m["role"] for m in longest] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert "0.10 of 1" in longest[-1]["content"] and "1 is low" in longest[-1]["content"]

    def mine(problem: Problem, history: Sequence[Scored]) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{problem.text}; not {history[-1].text}"}]

    with LoopbackServer(reply="x") as server:
        await solve(
            "Go", model=model_of(server, revision=mine), strategy=Revision(chains=1, rounds=2, select="majority")
        )
        assert server.requests[1].body["messages"] == [{"role": "user", "content": "Go; not x"}]


@pytest.mark.engine
async def test_llama_cpp_continues_for_real() -> None:
    pytest.importorskip("xllamacpp")
    problem = Problem("Count from one to eight in words, each on a line of its own.")
    with LocalModel(max_tokens=24, slots=4, context=512, steps=StepSettings(by="line")) as model:
        begun = Candidate(problem, text="One\nTwo\nThree", steps=(Step("One"), Step("Two"), Step("Three")))
        reply = await model.expand(begun, [1], greedy=True)
        assert reply.generations[0].text.strip().lower() == "four" and reply.generations[0].finish_reason == "step"
        assert reply.usage is not None and reply.usage.exact and reply.usage.completion_tokens < 8
        again = await model.expand(begun, [2], greedy=True)
        assert again.generations == reply.generations
        result = await solve(
            problem, model=model, strategy=BeamSearch(n=2, beam_width=2, max_steps=3), verifier=EVEN, seed=1
        )
        assert 2 <= result.usage.calls <= 6 and result.usage.overshoot == 0 and 1 <= len(result.best.steps) <= 3
        assert not any("\n" in step.text for step in result.best.steps)
        await model.aclose()
