"""`tts_plugins.server` over real sockets: what is forwarded, used, refused, counted, and how errors look."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.serving import ASK, Serving, frames, free_port, serving
from tests.waiting import until
from tests.wire import WireServer, in_chunks
from tts_plugins.errors import ConfigurationError
from tts_plugins.server.errors import APIError
from tts_plugins.server.requests.fields import ChatRequest
from tts_plugins.server.requests.profiles import Profiles
from tts_plugins.server.settings import ServerSettings
from tts_plugins.testing.loopback import Fault, LoopbackServer, Reply

PROFILES = """
[profiles.careful]
strategy = { type = "best-of-n", n = 4 }
verifier = "tests.serving_checks:is_four"

[profiles.thrifty]
strategy = { type = "self-consistency", n = 3 }
budget = { calls = 2 }

[profiles.steps]
strategy = { type = "beam-search", n = 4, beam_width = 2, max_steps = 6 }
verifier = "tests.serving_checks:step_scores"

[profiles.unsure]
strategy = { type = "beam-search", n = 4, beam_width = 2, max_steps = 6 }
verifier = "tests.serving_checks:step_scores"
abstain_below = 0.999
"""
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def upstream() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=["22", "It is 4.", "4", "5"], indexing="arrival") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "tts-plugins.toml").write_text(PROFILES)
    return str(tmp_path)


@pytest.fixture
def served(upstream: LoopbackServer, folder: str) -> Iterator[Serving]:
    with serving(base_url=upstream.base_url, directory=folder) as server:
        yield server


def chat(served: Serving, **fields: Any) -> tuple[int, Any]:
    status, body, _ = served.post("/v1/chat/completions", {**ASK, **fields})
    return status, body


# What is forwarded


def test_one_sample_is_one_request_and_every_field_arrives(served: Serving, upstream: LoopbackServer) -> None:
    sent = {
        "temperature": 0.3, "max_tokens": 9, "top_p": 0.5, "tools": [TOOL], "tool_choice": "auto", "seed": 77,
        "stop": ["\n"], "presence_penalty": 0.1, "frequency_penalty": 0.2, "logit_bias": {"5": 1}, "user": "u",
        "logprobs": True, "top_logprobs": 2, "reasoning_effort": "low", "parallel_tool_calls": False,
        "response_format": {"type": "json_object"}, "metadata": {"a": "b"}, "top_k": 5, "min_p": 0.1,
        "chat_template_kwargs": {"enable_thinking": False}, "verbosity": "low", "service_tier": "auto",
    }  # fmt: skip
    status, body = chat(served, **sent)
    assert status == 200 and body["choices"][0]["message"]["content"] == "22"
    assert body["tts"]["candidates"] == 1 and body["usage"]["total_tokens"] == upstream.counts.tokens
    (request,) = upstream.requests
    assert {key: request.body.get(key) for key in sent} == sent
    assert request.body["messages"] == ASK["messages"] and request.body["model"] == "loopback"
    assert "tts" not in request.body and "n" not in request.body


def test_max_completion_tokens_goes_out_under_its_own_name(served: Serving, upstream: LoopbackServer) -> None:
    assert chat(served, max_completion_tokens=7)[0] == 200
    assert upstream.requests[0].body["max_completion_tokens"] == 7 and "max_tokens" not in upstream.requests[0].body


def test_n_choices_without_a_search(served: Serving) -> None:
    status, body = chat(served, n=3, temperature=1)
    assert status == 200 and [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert {c["message"]["content"] for c in body["choices"]} == {"22", "It is 4.", "4"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_url", "http://evil"), ("api_base", "http://evil"), ("api_key", "sk-x"), ("extra_headers", {"a": "b"}),
        ("extra_body", {"n": 9}), ("extra_query", {"a": "b"}), ("timeout", 1), ("price", [0, 0]), ("best_of", 4),
        ("n_predict", 4), ("n_cmpl", 4), ("user_config", {}), ("fallbacks", ["a"]), ("custom_llm_provider", "x"),
        ("mock_response", "x"), ("prompt", "x"), ("headers", {}), ("store", True), ("modalities", ["audio"]),
        ("max_tokens", 0), ("max_tokens", "9"), ("n", 0), ("n", 65), ("n", True), ("temperature", 9),
        ("temperature", "a"),
        ("seed", 1.5), ("stream", "yes"), ("stream_options", {"include_usage": True}), ("messages", []),
        ("messages", "hi"), ("messages", [{"role": "robot", "content": "x"}]),
        ("messages", [{"role": "user", "content": 4}]),
        ("model", ""), ("model", None), ("model", 5), ("tts", []), ("tts", {"verifier": "os:system"}),
        ("tts", {"price": 0}), ("tts", {"base_url": "http://evil"}), ("tts", {"n": 1000}),
        ("tts", {"strategy": "nope"}),
        ("tts", {"strategy": "compute-optimal"}),
        ("tts", {"strategy": {"type": "compute-optimal", "file": "/etc/passwd"}}),
        ("tts", {"strategy": {"type": "best-of-n", "stop": {"type": "learned-stopping", "file": "/etc/passwd"}}}),
        ("tts", {"strategy": {"type": "best-of-n", "n": 100000}}),
        ("tts", {"strategy": {"type": "best-of-n", "n": -1}}),
        ("tts", {"strategy": {"type": "beam-search", "n": 60, "max_steps": 100000}}),
        ("tts", {"budget": {"joules": 1}}),
        ("tts", {"budget": {"tokens": -5}}), ("tts", {"seed": "x"}), ("tts", {"on_exhausted": "cry"}),
        ("tts", {"profile": 5}),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_a_400_that_names_it(
    served: Serving, upstream: LoopbackServer, field: str, value: Any
) -> None:
    status, body = chat(served, **{field: value})
    assert status == 400, body
    assert set(body["error"]) == {"message", "type", "param", "code"} and field in str(body["error"])
    assert upstream.counts.requests == 0


def test_temperature_0_of_a_search_is_refused_and_of_one_sample_is_not(served: Serving) -> None:
    assert chat(served, temperature=0)[0] == 200
    status, body = chat(served, temperature=0, tts={"n": 4})
    assert status == 400 and body["error"]["param"] == "temperature"


# Profiles


def test_a_profile_by_the_name_of_the_model(served: Serving, upstream: LoopbackServer) -> None:
    status, body = chat(served, model="careful/loopback")
    assert status == 200 and body["choices"][0]["message"]["content"] == "4" and body["model"] == "careful/loopback"
    assert body["tts"]["profile"] == "careful" and body["tts"]["score"] == 1.0 and body["tts"]["candidates"] == 4
    assert body["usage"]["total_tokens"] >= upstream.counts.tokens and body["tts"]["calls"] == 4
    assert chat(served, tts={"profile": "careful", "n": 2})[1]["tts"]["candidates"] == 2


def test_the_nearest_profile_is_named(served: Serving) -> None:
    status, body = chat(served, tts={"profile": "carefull"})
    assert status == 404 and "'careful'" in body["error"]["message"]
    assert body["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_a_profile_misspelt_before_a_model_of_the_upstream_is_not_taken_for_a_model(
    served: Serving, upstream: LoopbackServer, path: str
) -> None:
    ask = {"messages": ASK["messages"]} if path == "chat/completions" else {"input": "x"}
    status, body, _ = served.post(f"/v1/{path}", {"model": "carefull/loopback", **ask})
    assert status == 404 and "Did you mean 'careful/loopback'?" in body["error"]["message"]
    assert upstream.counts.tokens == 0
    assert served.post(f"/v1/{path}", {"model": "carefull/another", **ask})[0] == 200  # it may be the upstream's


def test_a_bare_profile_needs_a_model(upstream: LoopbackServer, folder: str) -> None:
    with serving(base_url=upstream.base_url, directory=folder, models=("loopback",)) as served:
        assert chat(served, model="careful")[1]["choices"][0]["message"]["content"] == "4"
        status, body = chat(served, model="lopback")
        assert status == 404 and "'loopback'" in body["error"]["message"]
    with serving(base_url=upstream.base_url, directory=folder) as served:
        assert chat(served, model="careful")[0] == 400


def test_models_are_the_upstream_s_and_the_profiles(served: Serving) -> None:
    _, body, _ = served.get("/v1/models")
    names = [m["id"] for m in body["data"]]
    assert names[:4] == ["loopback", "careful", "steps", "thrifty"] and "careful/loopback" in names
    assert served.get("/v1/models/careful")[1]["id"] == "careful" and served.get("/v1/models/nope")[0] == 404


# Budgets


def test_a_used_up_budget_ends_the_search_with_the_best_so_far(served: Serving) -> None:
    status, body = chat(served, model="thrifty/loopback")
    assert status == 200 and body["tts"]["stopped"] == "budget" and body["tts"]["calls"] <= 2


def test_no_room_for_a_single_candidate_is_insufficient_quota(served: Serving, upstream: LoopbackServer) -> None:
    status, body = chat(served, max_tokens=50, tts={"budget": {"tokens": 5}})
    assert status == 429 and body["error"]["code"] == "insufficient_quota" == body["error"]["type"]
    status, body = chat(served, model="thrifty/loopback", tts={"on_exhausted": "raise"})
    assert status == 429


def test_a_budget_that_the_upstream_s_failures_used_up_is_the_upstream_s_fault(folder: str) -> None:
    with (
        LoopbackServer(reply="4", faults=Fault.status(500)) as failing,
        serving(base_url=failing.base_url, directory=folder) as served,
    ):
        status, body = chat(served, max_tokens=50, tts={"n": 4, "budget": {"tokens": 400}})
        assert status == 502 and body["error"]["code"] == "upstream_error", body
        assert failing.base_url not in body["error"]["message"]


def test_a_caller_s_budget_only_narrows(served: Serving) -> None:
    assert chat(served, model="thrifty/loopback", tts={"budget": {"calls": 99}})[1]["tts"]["calls"] <= 2


# Streams


def stream(served: Serving, **fields: Any) -> str:
    status, text, headers = served.post("/v1/chat/completions", {**ASK, "stream": True, **fields})
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert isinstance(text, str) and text.endswith("data: [DONE]\n\n")
    return text


def content(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


@pytest.mark.parametrize("model", ["loopback", "careful/loopback", "steps/loopback"])
@pytest.mark.parametrize("usage", [None, True, False])
def test_a_stream_ends_with_the_usage_of_all_calls(served: Serving, model: str, usage: bool | None) -> None:
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    chunks = frames(stream(served, model=model, **options))
    assert content(chunks) and chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] in ("stop", "length")
    assert len({c["id"] for c in chunks}) == 1 and chunks[-1]["tts"]["calls"] >= 1
    assert ("usage" in chunks[-1]) == (usage is not False) and (chunks[-1]["choices"] == []) == (usage is True)
    if model == "careful/loopback":
        assert content(chunks) == "4"


def test_one_sample_is_passed_on_as_it_arrives(folder: str) -> None:
    with (
        LoopbackServer(reply="one two three four five six", per_token=0.15) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        arrivals = asyncio.run(_arrivals(served, {**ASK, "stream": True}))
    assert len(arrivals) > 3 and arrivals[-1] - arrivals[0] > 0.3


async def _arrivals(served: Serving, body: Any) -> list[float]:
    out = []
    async with aiohttp.ClientSession() as session, session.post(f"{served.url}/chat/completions", json=body) as answer:
        async for line in answer.content:
            out += [time.monotonic()] * (line.startswith(b"data: {") and b'"content"' in line)
    return out


def test_heartbeats_while_a_search_goes_on(folder: str) -> None:
    with (
        LoopbackServer(reply="4", latency=1.5) as upstream,
        serving(base_url=upstream.base_url, directory=folder, heartbeat=0.2) as served,
    ):
        text = stream(served, tts={"n": 3})
    before = text[: text.index("data: ")]
    assert before.startswith(": tts-plugins\n\n") and before.count("candidates so far") >= 3


def _steps(body: Any, index: int) -> str:
    said = "".join(m["content"] for m in body["messages"] if m["role"] == "assistant")
    return str(said + ("so shared it is.\n\n" if said.count("\n\n") < 2 else f"The answer is {index % 2}."))


def test_what_all_beams_share_goes_out_early_and_is_the_answer_s_beginning(folder: str) -> None:
    with (
        LoopbackServer(reply=_steps, latency=0.05) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        chunks = frames(stream(served, model="steps/loopback"))
        whole = chat(served, model="steps/loopback")[1]
    assert chunks[1]["choices"][0]["delta"]["content"].startswith("so shared it is.")
    assert content(chunks).count("so shared it is.") == whole["choices"][0]["message"]["content"].count(
        "so shared it is."
    )


def test_a_stream_of_which_a_beginning_went_out_ends_with_a_refusal_where_the_search_abstains(folder: str) -> None:
    with (
        LoopbackServer(reply=_steps, latency=0.05) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        chunks = frames(stream(served, model="unsure/loopback"))
    assert content(chunks).startswith("so shared it is.")
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    assert [d["refusal"] for d in deltas if "refusal" in d] and not any("error" in chunk for chunk in chunks)


def test_tool_calls_and_logprobs_arrive_in_both_forms(folder: str) -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    with (
        LoopbackServer(reply=[Reply(text="", tool_calls=calls)]) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        for extra in ({}, {"tts": {"n": 3}}):
            _, body = chat(served, tools=[TOOL], **extra)
            choice = body["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"
            chunks = frames(stream(served, tools=[TOOL], **extra))
            deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
            assert any(d.get("tool_calls") for d in deltas)
            assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "tool_calls"
    with LoopbackServer(reply="a b c") as upstream, serving(base_url=upstream.base_url, directory=folder) as served:
        for extra in ({}, {"tts": {"n": 2}}):
            body = chat(served, logprobs=True, top_logprobs=2, **extra)[1]
            assert len(body["choices"][0]["logprobs"]["content"]) >= 3
            chunks = frames(stream(served, logprobs=True, **extra))
            assert any(c["choices"] and c["choices"][0].get("logprobs") for c in chunks)


def test_a_candidate_that_says_nothing_is_not_chosen(folder: str) -> None:
    with (
        LoopbackServer(reply="It is 4.", faults=Fault.every(2, Fault.null_content())) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        for _ in range(6):
            status, body = chat(served, model="steps/loopback")
            assert status == 502 or body["choices"][0]["message"]["content"]


# Errors


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.status(401), 502, "upstream_authentication"), (Fault.status(404), 404, "model_not_found"),
        (Fault.status(400), 400, "upstream_refused"), (Fault.status(500), 502, "upstream_error"),
        (Fault.html(), 502, "upstream_malformed"), (Fault.reset(), 502, "upstream_unreachable"),
        (Fault.null_content(), 502, "upstream_malformed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True])
def test_faults_of_the_upstream_have_a_status_of_their_own(
    fault: Fault, status: int, code: str, streamed: bool
) -> None:
    with (
        LoopbackServer(faults=fault) as upstream,
        serving(base_url=upstream.base_url, timeout=3) as served,
    ):
        got, body = chat(served, stream=streamed)
        if streamed and fault.kind == "null_content":
            assert content(frames(body)) == ""  # one sample is passed on as it is
        elif streamed and got == 200:  # it had begun
            assert isinstance(body, str) and frames(body)[-1]["error"]["code"] in (
                code,
                "timeout",
                "upstream_broke_off",
            )
        else:
            assert (got, body["error"]["code"]) == (status, code) or (got, body["error"]["code"]) == (504, "timeout")
        assert served.quiet()


def test_an_upstream_that_is_down_and_comes_back(folder: str) -> None:
    port = free_port()
    with serving(base_url=f"http://127.0.0.1:{port}/v1", directory=folder, timeout=4) as served:
        status, body = chat(served)
        assert status in (502, 504) and str(port) not in json.dumps(body)
        assert served.get("/v1/models")[0] == 502 and served.get("/health")[0] == 200
        with LoopbackServer(port=port):
            assert chat(served)[0] == 200 and served.get("/v1/models")[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"9" * 5000])
def test_a_body_that_is_no_json_object(served: Serving, body: bytes) -> None:
    for path in ("chat/completions", "responses", "completions", "embeddings"):
        status, answer, _ = served.post(f"/v1/{path}", body)
        assert status == 400 and answer["error"]["code"] == "invalid_json"
        assert "sys." not in answer["error"]["message"]  # what Python says of a number that is too long


def test_a_large_prompt_passes_and_a_larger_one_is_refused(upstream: LoopbackServer) -> None:
    with serving(base_url=upstream.base_url) as served:
        large = [{"role": "user", "content": "x" * 5_000_000}]
        status, body = chat(served, messages=large)
        assert status == 200, body
        status, body = chat(served, messages=[{"role": "user", "content": "x" * 9_000_000}])
        assert status == 413 and body["error"]["code"] == "request_too_large"


def test_unknown_paths_and_methods(served: Serving) -> None:
    status, body, _ = served.get("/v1/nope")
    assert status == 404 and body["error"]["code"] == "unknown_path"
    assert served.get("/v1/chat/completions")[0] == 405


def test_the_deadline_is_kept(folder: str) -> None:
    with LoopbackServer(faults=Fault.hang()) as upstream, serving(base_url=upstream.base_url, timeout=1) as served:
        for streamed in (False, True):
            start = time.monotonic()
            got, body = chat(served, stream=streamed)
            assert time.monotonic() - start < 30
            assert (body["error"] if got != 200 else frames(body)[-1]["error"])["code"] == "timeout"


# Callers who go away


@pytest.mark.parametrize("streamed", [False, True])
def test_a_disconnect_cancels_the_upstream_s_work(folder: str, streamed: bool) -> None:
    with (
        LoopbackServer(reply="4", latency=60) as upstream,
        serving(base_url=upstream.base_url, directory=folder) as served,
    ):
        asyncio.run(_leave(served, upstream, {**ASK, "stream": streamed, "tts": {"n": 4}}))
        upstream.wait(lambda counts: counts.active == 0 and counts.requests > 0, timeout=25)
        assert served.quiet()


async def _leave(served: Serving, upstream: LoopbackServer, body: Any) -> None:
    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{served.url}/chat/completions", json=body) as answer,
        ):
            await answer.read()

    asking = asyncio.ensure_future(ask())
    await until(lambda: upstream.counts.active)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Endpoints that pass through


def test_completions_and_embeddings_pass_through(served: Serving, upstream: LoopbackServer) -> None:
    status, body, _ = served.post("/v1/completions", {"model": "loopback", "prompt": "hi", "max_tokens": 5})
    assert status == 200 and body["choices"][0]["text"]
    status, text, _ = served.post("/v1/completions", {"model": "loopback", "prompt": "hi", "stream": True})
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    status, body, _ = served.post("/v1/embeddings", {"model": "loopback", "input": ["a", "b"]})
    assert status == 200 and len(body["data"]) == 2
    assert [r.body["model"] for r in upstream.requests] == ["loopback"] * 3
    for name in ("careful", "careful/loopback"):
        assert served.post("/v1/embeddings", {"model": name, "input": "a"})[0] == 400
    assert served.post("/v1/completions", {"model": "loopback", "prompt": "a", "base_url": "http://evil"})[0] == 400


@pytest.mark.parametrize("breaks", ["never", "later", "at once"])
async def test_a_stream_that_passes_through_is_whole_at_its_end(breaks: str) -> None:
    """Regression: the caller's stream stayed open as long as the upstream's, or got an error after its end."""
    chunk = {"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}
    said, left_open, got = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode(), asyncio.Event(), b""
    sent = in_chunks(said, end=b"").replace(b"application/json", b"text/event-stream")
    actions = [sent] if breaks == "at once" else [sent, left_open]
    async with WireServer(lambda number, head: actions) as upstream:
        with serving(base_url=upstream.base_url) as served:
            ask = {"model": "m", "prompt": "x", "max_tokens": 50, "stream": True}
            async with (
                asyncio.timeout(60),
                aiohttp.ClientSession() as session,
                session.post(f"{served.url}/completions", json=ask) as answer,
            ):
                async for piece in answer.content.iter_any():
                    got += piece
                    if breaks == "later" and said in got:
                        left_open.set()
            assert got == said and await asyncio.to_thread(served.quiet)


@pytest.mark.parametrize(
    "said", ['{"error": "%s"}', "event: error\ndata: %s\n\n", 'data: {"message": "%s"}\n\n', ": %s\n\n"]
)
async def test_no_stream_that_passes_through_shows_the_key(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: only what had the form of OpenAI's errors was looked at."""
    monkeypatch.setenv("UPSTREAM_KEY", "sk-planted-0815-abcdef")
    body = (said % "sk-planted-0815-abcdef").encode()
    sent = in_chunks(body).replace(b"application/json", b"text/event-stream")
    async with WireServer(lambda number, head: [sent]) as upstream:
        with serving(base_url=upstream.base_url, api_key_env="UPSTREAM_KEY") as served:
            ask = {"model": "m", "prompt": "x", "max_tokens": 50, "stream": True}
            _, text, _ = await asyncio.to_thread(served.post, "/v1/completions", ask)
    assert "planted" not in str(text) and "…" in str(text)


# Responses


def test_responses_text_tools_and_streams(folder: str) -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]

    def reply(body: Any, index: int) -> Any:
        return Reply(text="", tool_calls=calls) if body.get("tools") and len(body["messages"]) == 1 else "It is 4."

    tool = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
    with LoopbackServer(reply=reply) as upstream, serving(base_url=upstream.base_url, directory=folder) as served:
        ask = {"model": "loopback", "input": "2 + 2?"}
        _, body, _ = served.post("/v1/responses", {**ask, "instructions": "Be brief.", "max_output_tokens": 30})
        assert body["status"] == "completed" and body["output"][0]["content"][0]["text"] == "It is 4."
        assert upstream.requests[-1].body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert upstream.requests[-1].body["max_tokens"] == 30
        _, body, _ = served.post("/v1/responses", {**ask, "tools": [tool]})
        call = body["output"][0]
        assert call["type"] == "function_call" and call["call_id"] == "call_1" and call["arguments"] == '{"a": 1}'
        more = [{"role": "user", "content": "2 + 2?"}, call,
                {"type": "function_call_output", "call_id": "call_1", "output": "4"}]  # fmt: skip
        _, body, _ = served.post("/v1/responses", {**ask, "input": more, "tools": [tool]})
        assert body["output"][0]["content"][0]["text"] == "It is 4."
        for extra in ({}, {"tts": {"n": 2}}, {"tools": [tool]}):
            _, text, _ = served.post("/v1/responses", {**ask, "stream": True, **extra})
            events = frames(text)
            assert [e["sequence_number"] for e in events] == list(range(len(events)))
            assert events[0]["type"] == "response.created" and events[-1]["type"] == "response.completed"
            assert events[-1]["response"]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"), ("conversation", "c"), ("background", True), ("store", True),
        ("tools", [{"type": "web_search"}]), ("include", ["reasoning.encrypted_content"]), ("truncation", "auto"),
        ("input", [{"type": "item_reference", "id": "x"}]), ("input", 5), ("text", {"format": {"type": "grammar"}}),
        ("nope", 1), ("reasoning", {"summary": "auto"}), ("prompt", {"id": "p"}),
    ],
)  # fmt: skip
def test_what_responses_cannot_honour_is_refused_by_name(served: Serving, field: str, value: Any) -> None:
    status, body, _ = served.post("/v1/responses", {"model": "loopback", "input": "hi", field: value})
    assert status == 400 and field in str(body["error"])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_profile_that_abstains_refuses_and_says_how_sure_it_was(
    upstream: LoopbackServer, tmp_path: Path, streamed: bool
) -> None:
    (tmp_path / "tts-plugins.toml").write_text(
        '[profiles.sure]\nstrategy = { type = "self-consistency", n = 4 }\nabstain_below = 0.9\n'
    )
    with serving(base_url=upstream.base_url, directory=str(tmp_path)) as served:
        if streamed:
            said = stream(served, model="sure/loopback")
            assert '"refusal":"No answer: the confidence is' in said and '"content":"' not in said.replace('""', "")
            return
        status, body = chat(served, model="sure/loopback")
    assert status == 200
    (choice,) = body["choices"]
    assert choice["message"]["content"] is None and choice["message"]["refusal"].startswith("No answer")
    assert body["tts"]["abstained"]["below"] == 0.9 and body["tts"]["confidence"] == body["tts"]["agreement"] == 0.5


def test_a_profile_that_names_nobody_to_escalate_to_is_refused_and_stops_no_others(
    upstream: LoopbackServer, tmp_path: Path
) -> None:
    (tmp_path / "tts-plugins.toml").write_text(
        '[profiles.far]\nstrategy = "self-consistency"\nabstain_below = 0.9\non_abstain = "escalate"\n'
        '[profiles.sure]\nstrategy = { type = "self-consistency", n = 4 }\n'
    )
    settings = ServerSettings(base_url=upstream.base_url, directory=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"'far': on_abstain='escalate' .* ladder"):
        Profiles(replace(settings, profile="far"))
    profiles = Profiles(settings)
    assert list(profiles.known) == ["sure"]
    for name in ("far", "far/some-model"):
        with pytest.raises(APIError, match=r"'far': on_abstain='escalate' .* ladder") as raised:
            profiles.search(ChatRequest(model=name, messages=[], forwarded={}), [])
        assert raised.value.status == 400
