"""Steps by a plain completions endpoint: with llama.cpp's template, with vLLM's token ids, with templates of users."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any, ClassVar

import pytest
from openai import AsyncOpenAI

from tests.imitations import STEPS, Body, ModelOf, completes, goes_on
from tts_plugins import BeamSearch, Budget, Candidate, ParticleFilter, Problem, Step, solve
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, DeadlineExceeded, MalformedResponse
from tts_plugins.models import LocalModel, OpenAICompatibleModel, StepSettings
from tts_plugins.models._chat.templates import Templates
from tts_plugins.models._openai.completions import as_chat, completion_body
from tts_plugins.testing.loopback import Fault, LoopbackServer, Reply
from tts_plugins.verifiers import CallableVerifier

pytestmark = pytest.mark.usefixtures("transport")
EVEN = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True, name="even")
BEAM = BeamSearch(n=4, beam_width=2)
BEGUN = Candidate(Problem("Add"), text="Take 3.", steps=(Step("Take 3."),))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def prompts(server: LoopbackServer) -> list[Any]:
    return [r.body["prompt"] for r in server.requests if r.path == "/v1/completions"]


@pytest.mark.parametrize("template", ["text", "ids"])
@pytest.mark.parametrize(("turn", "probes"), [("refused", 3), ("any", 4)], ids=["refused", "ignored"])
@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_found_last_before_words_and_gives_clean_steps(
    model_of: ModelOf, template: Any, turn: Any, probes: int, stream: bool
) -> None:
    with LoopbackServer(reply=completes, assistant_turn=turn, template=template, tokenizer=True) as server:
        model = model_of(server, stream=stream, system="Be brief.")
        result = await solve(
            "Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, budget=Budget(calls=60, tokens=20_000), seed=1
        )
        assert [re.sub(r"^Step \d: ", "", s.text) for s in result.best.steps] == STEPS
        assert model._way == "completions" and [e["way"] for e in result.trace if e["kind"] == "steps"] == [
            "completions"
        ]
        assert result.usage.overshoot == 0 and result.usage.exact
        # Refused probes cost a call and no tokens; all that was generated is in the figures, to the token.
        counts = server.counts
        assert result.usage.calls == counts.choices + (2 if turn == "refused" else 0)
        assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (
            counts.prompt_tokens, counts.completion_tokens,
        )  # fmt: skip
        assert sum("k7q2" in str(r.body.get("messages")) for r in server.requests) == probes - 1
        before = len(server.requests)
        again = await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=1)
        assert [s.text for s in again.best.steps] == [s.text for s in result.best.steps]
        assert not [r for r in server.requests[before:] if "k7q2" in str(r.body)]
        if template == "text":
            assert prompts(server)[-1].endswith(
                "<|im_start|>user\nAdd 3, 4, 5<|im_end|>\n<|im_start|>assistant\n"
                + "\n\n".join(s.text for s in again.best.steps[:-1]) + "\n\n"
            )  # fmt: skip
        else:
            assert all(isinstance(p, list) and all(type(i) is int for i in p) for p in prompts(server))


async def test_without_a_template_nothing_is_asked_of_it(model_of: ModelOf) -> None:
    with LoopbackServer(reply=completes, assistant_turn="refused") as server:
        model = model_of(server)
        await solve("Add", model=model, strategy=BeamSearch(n=2, beam_width=2, max_steps=2), verifier=EVEN)
        assert model._way == "prompt" and "/v1/completions" not in server.counts.by_path


async def test_a_template_without_a_completions_endpoint_is_no_way(model_of: ModelOf) -> None:
    def refuses(number: int) -> Fault | None:
        return Fault.status(404) if server.requests[number].path == "/v1/completions" else None

    with LoopbackServer(reply=completes, assistant_turn="refused", template="text", faults=refuses) as server:
        model = model_of(server)
        await solve("Add", model=model, strategy=BeamSearch(n=2, beam_width=2, max_steps=2), verifier=EVEN)
        assert model._way == "prompt" and server.counts.by_path["/v1/completions"] == 1


@pytest.mark.parametrize(
    ("template", "head"),
    [
        (CHATML, "<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n"),
        ("text", "Add"),
        (lambda messages: f"Q: {messages[-1]['content']}\nA:", "Q: Add\nA:"),
    ],
    ids=["jinja", "text", "function"],
)
async def test_templates_of_users_need_nothing_of_the_server(model_of: ModelOf, template: Any, head: str) -> None:
    """A base model may have no chat at all: the first step is a completion too."""
    if template is CHATML:
        pytest.importorskip("jinja2")
    with LoopbackServer(reply=lambda body, index: Reply(goes_on(body))) as server:
        model = model_of(server, steps=StepSettings(way="completions", template=template))
        result = await solve("Add", model=model, strategy=ParticleFilter(n=2), verifier=EVEN, seed=1)
        assert [s.text for s in result.best.steps] == STEPS and result.best.finished
        assert set(server.counts.by_path) == {"/v1/completions"}
        assert prompts(server)[0] == head and prompts(server)[-1] == head + "\n\n".join(STEPS[:-1]) + "\n\n"


@pytest.mark.parametrize("template", ["text", "ids"])
async def test_a_step_has_its_bound_its_choices_and_its_log_probabilities(model_of: ModelOf, template: Any) -> None:
    with LoopbackServer(reply=lambda body, index: Reply(goes_on(body), tells_stop=True), template=template) as server:
        model = model_of(server, steps=StepSettings(way="completions", max_tokens=9), logprobs=2)
        bound = await model.step_bound(BEGUN)
        reply = await model.expand(BEGUN, [5, 6, 7])
        assert bound is not None and bound.completion_tokens == 9 and reply.usage is not None
        assert bound.prompt_tokens >= reply.usage.prompt_tokens == server.counts.prompt_tokens
        assert [g.text for g in reply.generations] == [STEPS[1]] * 3
        assert {g.finish_reason for g in reply.generations} == {"step"}  # it says which stop string it was
        body = server.requests[0].body
        assert (body["n"], body["seed"], body["max_tokens"], body["logprobs"]) == (3, 5, 9, 2)
        assert body["stop"] == ["\n\n"] and "top_logprobs" not in body and "messages" not in body
        first = reply.generations[0]
        assert first.logprobs is not None and len(first.logprobs) == len(STEPS[1].split())
        assert first.top_logprobs is not None and len(first.top_logprobs[0]) == 3  # itself, and two
        tightened = await model.step_bound(BEGUN)
        assert tightened is not None and tightened.prompt_tokens == reply.usage.prompt_tokens


async def test_a_cut_step_is_truncated_and_an_empty_one_ends(model_of: ModelOf) -> None:
    with LoopbackServer(reply="one two three four", template="text") as server:
        model = model_of(server, steps=StepSettings(way="completions", max_tokens=2))
        (cut,) = (await model.expand(BEGUN, [1])).generations
        assert (cut.text, cut.finish_reason) == ("one two", "length")
        server.configure(reply="")
        (empty,) = (await model.expand(BEGUN, [1])).generations
        assert (empty.text, empty.finish_reason) == ("", "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Fault.null_content(), Fault.missing_message()], ids=lambda f: f.kind)
async def test_a_choice_without_a_text_ends_nothing(model_of: ModelOf, fault: Fault, stream: bool) -> None:
    """An empty text is the end of a solution; none is a malformed answer, which is asked for again."""
    with LoopbackServer(reply=lambda body, index: Reply(goes_on(body)), template="text") as server:
        model = model_of(server, stream=stream, steps=StepSettings(way="completions"))
        server.configure(faults=Fault.every(1, fault))
        with pytest.raises(MalformedResponse, match="neither text nor a tool call"):
            await model.expand(BEGUN, [1])
        server.configure(faults=Fault.every(2, fault))
        result = await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=1)
        assert [s.text for s in result.best.steps] == STEPS
        assert "MalformedResponse" in str([e["error"] for e in result.trace if e["kind"] == "failure"])


@pytest.mark.parametrize("way", ["auto", "completions"])
async def test_a_repeated_prompt_is_no_step(model_of: ModelOf, way: Any) -> None:
    def repeats(body: Body, index: int) -> Reply:
        return Reply(goes_on(body), echo=body["prompt"]) if "prompt" in body else completes(body, index)

    with LoopbackServer(reply=repeats, assistant_turn="refused", template="text") as server:
        model = model_of(server, steps=StepSettings(way=way))
        result = await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=1)
        assert [re.sub(r"^Step \d: ", "", s.text) for s in result.best.steps] == STEPS
        assert model._way == "completions" and model._echoes is True


@pytest.mark.parametrize("whole", [True, False], ids=["nothing-more", "cut"])
async def test_nothing_but_the_prompt_is_an_error(model_of: ModelOf, whole: bool) -> None:
    """A server that repeats the prompt, and stops in it where a step would end."""
    with LoopbackServer(reply=lambda body, index: Reply("", echo=body["prompt"].split("\n\n")[0])) as server:
        model = model_of(server, steps=StepSettings(way="completions", template="text"))
        asked, said = ("Add", "wrote no step at all") if whole else ("Add\n\n3, 4, 5", "repeats its prompt")
        with pytest.raises(AllCandidatesFailed, match=said):
            await solve(asked, model=model, strategy=BEAM, verifier=EVEN, attempts=1)


async def test_a_paragraph_of_the_prompt_is_a_step_where_nothing_is_repeated(model_of: ModelOf) -> None:
    with LoopbackServer(reply="Take 3.") as server:
        model = model_of(server, steps=StepSettings(way="completions", template="text"))
        await model.expand(Candidate(Problem("Add")), [1])
        (made,) = (await model.expand(Candidate(Problem("Take 3.\n\nAdd 4.")), [1])).generations
        assert made.text == "Take 3."


class Stumbling(AsyncOpenAI):
    """The template's path fails the first `left` times, in its copies too."""

    left: ClassVar[list[None]] = []

    async def post(self, path: str, **how: Any) -> Any:
        if path.endswith("/apply-template") and self.left:
            self.left.pop()
            raise ConnectionResetError("by the peer")
        return await super().post(path, **how)


@pytest.mark.parametrize(("left", "first"), [(1, "completions"), (3, "completions"), (99, "prompt")])
async def test_a_fault_on_the_way_to_the_template_rules_nothing_out(left: int, first: str) -> None:
    """Within a solve it is tried again; where that does not help, the next solve finds out."""
    with LoopbackServer(reply=completes, assistant_turn="refused", template="text") as server:
        async with Stumbling(base_url=server.base_url, api_key="-", max_retries=0) as client:
            client.left[:] = [None] * left
            model = OpenAICompatibleModel("m", client=client, max_tokens=50, temperature=0.8)
            result = await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=1, attempts=3)
            assert [re.sub(r"^Step \d: ", "", s.text) for s in result.best.steps] == STEPS
            (found,) = [e for e in result.trace if e["kind"] == "steps"]  # asked once, though there were more levels
            assert found["way"] == first and ("by the peer" in found.get("error", "")) is (first == "prompt")
            client.left.clear()
            await solve("Add 3, 4, 5", model=model, strategy=BEAM, verifier=EVEN, seed=1)
            assert model._way == "completions"


async def test_templates_are_rendered_once_for_each_problem_and_text() -> None:
    class Counting:
        """The client's place: it counts what is asked besides completions."""

        def __init__(self, inner: AsyncOpenAI) -> None:
            self.base_url, self.inner, self.asked = inner.base_url, inner, list[str]()

        async def post(self, address: str, **how: Any) -> Any:
            self.asked.append(address.rpartition("/")[2])
            assert how["options"]["headers"] == {"x-team": "a"}
            return await self.inner.post(address, **how)

    messages = [{"role": "user", "content": "Add"}]
    with LoopbackServer(template="ids") as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-") as inner:
            client, templates = Counting(inner), Templates(None, {"x-team": "a"})
            for begun in ("", "Take 3.\n\n", "", "Take 3.\n\n", "Take 3.\n\nAdd 4.\n\n"):
                ids = await templates.prompt(client, "m", messages, begun, {})
                assert len(ids) == len(f"<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n{begun}".split())
            assert client.asked == ["apply-template", "tokenize", "tokenize", "tokenize"]


async def test_what_it_lacks_is_said_with_the_mend(model_of: ModelOf) -> None:
    with LoopbackServer(reply="x") as server:
        model = model_of(server, steps=StepSettings(way="completions"))
        with pytest.raises(ConfigurationError, match=r"/apply-template.*StepSettings\(template=…\)"):
            await solve("Add", model=model, strategy=BEAM, verifier=EVEN)
        assert not server.requests

        def broken(messages: Any) -> str:
            raise KeyError("role")

        for template, said in ((broken, "the template failed, KeyError"), (lambda m: "", "the template gave ''")):
            model = model_of(server, steps=StepSettings(way="completions", template=template))
            with pytest.raises(ConfigurationError, match=said):
                await solve("Add", model=model, strategy=BEAM, verifier=EVEN)


async def test_a_slow_function_is_run_beside_the_loop_and_once_for_each_prompt(model_of: ModelOf) -> None:
    """While it runs, the loop keeps the deadline."""
    threads, prompts_of, ended = set[str](), list[str](), threading.Event()

    def quick(messages: Any) -> str:
        threads.add(threading.current_thread().name)
        prompts_of.append(messages[-1]["content"])
        messages.clear()
        return "Q: Add"

    def slow(messages: Any) -> str:
        ended.wait(60)
        return "x"

    with LoopbackServer(reply=lambda body, index: Reply(goes_on(body))) as server:
        model = model_of(server, steps=StepSettings(way="completions", template=quick))
        result = await solve("Add", model=model, strategy=BEAM, verifier=EVEN, budget=Budget(seconds=20))
        assert [s.text for s in result.best.steps] == STEPS
        assert threads == {"tts-plugins-worker"} and prompts_of == ["Add"]
        model = model_of(server, steps=StepSettings(way="completions", template=slow))
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await solve("Add", model=model, strategy=BEAM, verifier=EVEN, budget=Budget(seconds=0.3))
        assert time.monotonic() - start < 20
        ended.set()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
async def test_whatever_a_function_raises_is_its_failure(model_of: ModelOf, raised: type[BaseException]) -> None:
    def fails(messages: Any) -> str:
        raise raised

    with LoopbackServer(reply="x") as server:
        model = model_of(server, steps=StepSettings(way="completions", template=fails))
        with pytest.raises(ConfigurationError, match=f"the template failed, {raised.__name__}"):
            await solve("Add", model=model, strategy=BEAM, verifier=EVEN)


async def test_a_server_that_is_away_is_a_failure_and_no_missing_template(model_of: ModelOf) -> None:
    with LoopbackServer(reply="x") as server:
        model = model_of(server, steps=StepSettings(way="completions"))
    with pytest.raises(AllCandidatesFailed, match="connection failed"):
        await solve("Add", model=model, strategy=BeamSearch(n=2, beam_width=2), verifier=EVEN, attempts=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"template": "chatml"}, "template='chatml' is not a template"),
        ({"template": "text", "way": "plain"}, "template is for way='completions'"),
        ({"template": "{% for %}"}, "template, line 1"),
    ],
)
def test_bad_settings(settings: Any, said: str) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        StepSettings(**settings)


def test_fields_that_only_chats_have_go_along_or_stay() -> None:
    body: Body = {
        "model": "m", "prompt": "x", "max_completion_tokens": 7, "logprobs": True, "tools": [1],
        "reasoning_effort": "low",
        "extra_body": {"top_k": 3}, "response_format": {"type": "json_object"},
    }  # fmt: skip
    assert completion_body(body) == {
        "model": "m", "prompt": "x", "max_tokens": 7, "logprobs": 1,
        "extra_body": {"reasoning_effort": "low", "response_format": {"type": "json_object"}, "top_k": 3},
    }  # fmt: skip
    assert as_chat("no completion") == "no completion"


@pytest.mark.engine
async def test_llama_cpp_completes_for_real() -> None:
    pytest.importorskip("xllamacpp")
    problem = Problem("Count from one to eight in words, each on a line of its own.")
    steps = StepSettings(by="line", way="completions")
    with LocalModel(max_tokens=24, slots=4, context=512, steps=steps, logprobs=True) as model:
        begun = Candidate(problem, text="One\nTwo\nThree", steps=(Step("One"), Step("Two"), Step("Three")))
        reply = await model.expand(begun, [1], greedy=True)
        (made,) = reply.generations
        assert made.text.strip().lower() == "four" and made.finish_reason == "step"
        assert made.logprobs is not None and max(made.logprobs) < 0
        assert reply.usage is not None and reply.usage.exact and reply.usage.completion_tokens < 8
        result = await solve(
            problem, model=model, strategy=BeamSearch(n=2, beam_width=2, max_steps=3), verifier=EVEN, seed=1,
            budget=Budget(calls=6, tokens=2_000),
        )  # fmt: skip
        assert 2 <= result.usage.calls <= 6 and result.usage.overshoot == 0 and 1 <= len(result.best.steps) <= 3
        assert not any("\n" in step.text for step in result.best.steps)
        await model.aclose()
