"""The loopback server seen through the real OpenAI client, and through a bare socket where the client hides things."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tts_plugins.testing.loopback import USAGES, Fault, LoopbackServer, Reply, Settings, echo

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What is 17 times 23"}]}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply="it is 391") as running:
        yield running


@pytest.fixture
async def client(server: LoopbackServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0, timeout=60.0) as made:
        yield made


async def ask(client: AsyncOpenAI, **more: Any) -> Any:
    return await client.chat.completions.create(**{**ASK, **more})


async def collect(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def raw(server: LoopbackServer, body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    """One request over a bare socket, and all that comes back."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


# what it says


async def test_answers_and_charges(server: LoopbackServer, client: AsyncOpenAI) -> None:
    before = time.monotonic()
    answer = await ask(client, n=3)
    assert [choice.message.content for choice in answer.choices] == ["it is 391"] * 3
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 9)
    counts = server.counts
    assert (counts.requests, counts.choices, counts.prompt_tokens, counts.completion_tokens) == (1, 3, 5, 9)
    assert (counts.peak, counts.active, counts.aborted, counts.tokens) == (1, 0, 0, 14)
    assert counts.by_path == {"/v1/chat/completions": 1}
    (kept,) = server.requests
    assert kept.body == {**ASK, "n": 3} and kept.headers["authorization"] == "Bearer -"
    assert before <= kept.at <= time.monotonic()
    server.reset()
    assert server.counts.requests == 0 and server.requests == []


async def test_list_is_cycled_by_seed_or_by_arrival(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(reply=["a", "b", "c"])
    assert [c.message.content for c in (await ask(client, n=2, seed=4)).choices] == ["b", "c"]
    assert [c.message.content for c in (await ask(client, n=2, seed=4)).choices] == ["b", "c"]
    assert [c.message.content for c in (await ask(client, n=4)).choices] == ["a", "b", "c", "a"]
    server.configure(indexing="arrival")
    assert [c.message.content for c in (await ask(client, n=2, seed=4)).choices] == ["b", "c"]
    assert [c.message.content for c in (await ask(client, n=2, seed=4)).choices] == ["a", "b"]


async def test_seeded_texts(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(reply="seeded")
    batch = await ask(client, n=4, seed=10, max_tokens=20)
    singles = [(await ask(client, seed=10 + i, max_tokens=20)).choices[0] for i in range(4)]
    assert [c.message.content for c in batch.choices] == [c.message.content for c in singles]
    assert len({c.message.content for c in singles}) == 4
    assert all(1 <= len(c.message.content.split()) <= 20 and c.finish_reason == "stop" for c in singles)
    server.configure(same_text_for_seed=True)
    assert len({c.message.content for c in (await ask(client, n=4, seed=10)).choices}) == 1


async def test_reply_function_and_its_details(server: LoopbackServer, client: AsyncOpenAI) -> None:
    def speak(body: dict[str, Any], index: int) -> str | Reply:
        if index == 0:
            return Reply(None, tool_calls=[{"name": "add", "arguments": {"a": 1}}])
        return Reply("yes", reasoning="let me think", completion_tokens=40, prompt_tokens=7, logprobs=[-0.5])

    server.configure(reply=speak)
    call = (await ask(client, seed=0)).choices[0]
    assert call.finish_reason == "tool_calls" and call.message.content is None
    assert json.loads(call.message.tool_calls[0].function.arguments) == {"a": 1}
    answer = await ask(client, seed=1, logprobs=True, top_logprobs=3)
    assert answer.choices[0].message.reasoning_content == "let me think"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 40)
    (token,) = answer.choices[0].logprobs.content
    assert (token.token, token.logprob, len(token.top_logprobs)) == ("yes", -0.5, 3)
    thinking = await ask(client, seed=1, max_completion_tokens=2)
    assert thinking.choices[0].message.content is None and thinking.choices[0].finish_reason == "length"
    assert thinking.usage.completion_tokens == 2


async def test_failing_reply_function_says_so(
    server: LoopbackServer, client: AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    server.configure(reply=lambda body, index: str(1 // 0))
    with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
        await ask(client)
    assert "reply function failed" in caplog.text


async def test_max_tokens_stop_and_logprobs(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(reply="one two\nthree four ")
    for limit in ("max_tokens", "max_completion_tokens"):
        cut = await ask(client, **{limit: 3})
        assert cut.choices[0].message.content == "one two\nthree" and cut.choices[0].finish_reason == "length"
        assert cut.usage.completion_tokens == 3
    stopped = await ask(client, stop=["four", "\n"], max_tokens=3, logprobs=True)
    assert stopped.choices[0].message.content == "one two" and stopped.choices[0].finish_reason == "stop"
    assert [entry.token for entry in stopped.choices[0].logprobs.content] == ["one", " two"]
    assert all(entry.logprob < 0 for entry in stopped.choices[0].logprobs.content)
    assert (await ask(client)).choices[0].message.content == "one two\nthree four "


@pytest.mark.parametrize("n", [1, 3])
async def test_stream(server: LoopbackServer, client: AsyncOpenAI, n: int) -> None:
    chunks = await collect(await ask(client, stream=True, n=n, logprobs=True, stream_options={"include_usage": True}))
    texts = [""] * n
    ends = [None] * n
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] = ends[choice.index] or choice.finish_reason
    assert texts == ["it is 391"] * n and ends == ["stop"] * n
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 3 * n
    assert server.counts.completion_tokens == 3 * n
    bare = [c async for c in await ask(client, stream=True)]
    assert all(c.usage is None for c in bare) and bare[-1].choices[0].finish_reason == "stop"


async def test_stream_is_paced(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(latency=0.05, per_token=0.06, reply="a b c d e f g h i j")
    start = time.monotonic()
    arrivals = [time.monotonic() - start async for _ in await ask(client, stream=True)]
    assert arrivals[0] >= 0.05 and arrivals[-1] >= 0.5 and arrivals[-1] - arrivals[0] > 0.1
    start = time.monotonic()
    await ask(client)
    assert time.monotonic() - start >= 0.65


async def test_completions_embeddings_models(server: LoopbackServer, client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="m", prompt=["a b", "c"], n=2, logprobs=2)
    assert [c.text for c in answer.choices] == ["it is 391"] * 4
    assert answer.usage is not None and answer.usage.prompt_tokens == 3
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens == ["it", " is", " 391"] and logprobs.text_offset == [0, 2, 5]
    stream = await client.completions.create(model="m", prompt="a", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "it is 391"
    vectors = await client.embeddings.create(model="m", input=["a", "b", "a"], encoding_format="float")
    assert vectors.data[0].embedding == vectors.data[2].embedding != vectors.data[1].embedding
    assert [model.id async for model in client.models.list()] == ["loopback"]
    assert server.counts.by_path == {"/v1/completions": 2, "/v1/embeddings": 1}


async def test_tokenizer(server: LoopbackServer, client: AsyncOpenAI) -> None:
    assert b"404" in raw(server, {"content": "a b"}, "/tokenize").splitlines()[0]
    server.configure(tokenizer=True)
    assert len(json.loads(raw(server, {"content": "a b a"}, "/tokenize").split(b"\r\n\r\n")[1])["tokens"]) == 3
    assert json.loads(raw(server, {"model": "m", "prompt": "a b"}, "/tokenize").split(b"\r\n\r\n")[1])["count"] == 2


async def test_templates(server: LoopbackServer, client: AsyncOpenAI) -> None:
    asked, shown = (
        {"messages": [{"role": "user", "content": "a b"}]},
        "<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\n",
    )

    def answer(path: str, body: dict[str, Any]) -> Any:
        return json.loads(raw(server, body, path).split(b"\r\n\r\n")[1])

    assert b"404" in raw(server, asked, "/apply-template").splitlines()[0]
    server.configure(template="text")
    assert answer("/apply-template", asked) == {"prompt": shown}
    server.configure(template="ids", reply="echo")
    ids = answer("/tokenize", asked)["tokens"]
    more = answer("/tokenize", {"prompt": "c d\n\n", "add_special_tokens": False})["tokens"]
    reply = await client.completions.create(model="m", prompt=[*ids, *more])
    assert reply.choices[0].text == f"{shown}c d\n\n" and reply.usage is not None
    assert reply.usage.prompt_tokens == len(ids) + len(more)
    with pytest.raises(openai.BadRequestError, match="token ids"):
        await client.completions.create(model="m", prompt=[10**6])


# what it refuses


async def test_n_ignored_or_limited(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(honours_n=False)
    assert len((await ask(client, n=4)).choices) == 1
    server.configure(honours_n=True, n_limit=2)
    with pytest.raises(openai.BadRequestError, match="Only up to 2"):
        await ask(client, n=3)
    assert server.counts.choices == 1


async def test_refusals(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(refuses_temperature=True, refuses_max_tokens=True, refuses=["seed"], api_key="right")
    with pytest.raises(openai.AuthenticationError):
        await ask(client)
    client = client.with_options(api_key="right")
    for wrong, code in (({"temperature": 0.5}, "unsupported_value"), ({"max_tokens": 5}, "unsupported_parameter")):
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, **wrong)
        assert caught.value.code == code and caught.value.param == next(iter(wrong))
    with pytest.raises(openai.BadRequestError, match="seed"):
        await ask(client, seed=1)
    for wrong in ({"n": 0}, {"max_completion_tokens": 0}):
        with pytest.raises(openai.BadRequestError):
            await ask(client, **wrong)
    assert (await ask(client, temperature=1, max_completion_tokens=5)).choices
    assert b"400 Bad" in raw(server, ["no object"])  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "options",
    [{"reply": []}, {"usage": "odd"}, {"latency": -1}, {"indexing": "odd"}, {"template": "odd"}],
    ids=lambda o: next(iter(o)),
)
def test_senseless_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LoopbackServer(**options)


@pytest.mark.parametrize("variant", USAGES)
async def test_usage_variants(server: LoopbackServer, variant: str) -> None:
    server.configure(usage=variant)
    usage = json.loads(raw(server, {**ASK, "n": 2}).split(b"\r\n\r\n")[1]).get("usage", "absent")
    reported = usage["completion_tokens"] if isinstance(usage, dict) else usage
    expected: dict[str, Any] = {
        "correct": 6, "missing": "absent", "null": None, "first_choice": 3, "negative": -7, "huge": 10**15,
        "string": "6", "infinite": float("inf"), "zero": 0,
    }  # fmt: skip
    assert reported == expected[variant]
    assert server.counts.completion_tokens == 6  # whatever it tells


# what goes wrong


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500, 503])
async def test_status(server: LoopbackServer, client: AsyncOpenAI, code: int) -> None:
    server.configure(faults=Fault.first(1, Fault.status(code, retry_after=7)))
    with pytest.raises(openai.APIStatusError, match="loopback fault") as caught:
        await ask(client)
    assert caught.value.status_code == code and caught.value.response.headers["retry-after"] == "7"
    assert server.counts.tokens == 0 and server.counts.by_fault == {"status": 1}
    assert (await ask(client)).choices
    server.configure(faults=Fault.status(code, body="down", charged=True))
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(client)
    assert caught.value.response.text == "down"
    assert server.counts.tokens == 16


async def test_broken_bodies(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(faults=[Fault.truncated_json(), Fault.html(), Fault.wrong_content_type()])
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        await ask(client)
    assert (await ask(client)).startswith("<!doctype html>")
    assert b"content-type: application/octet-stream" in raw(server, ASK).lower()
    assert server.counts.completion_tokens == 9


async def test_choices_that_lack_something(server: LoopbackServer, client: AsyncOpenAI) -> None:
    kinds = [Fault.empty_choices(), Fault.null_content(), Fault.missing_message(), Fault.partial_choices(2)]
    server.configure(faults={i: fault for i, fault in enumerate(kinds)})
    empty, null, missing, partial = [await ask(client, n=3) for _ in range(4)]
    assert empty.choices == []
    assert [c.message.content for c in null.choices] == [None] * 3
    assert all("message" not in c.model_fields_set for c in missing.choices)
    assert len(partial.choices) == 2 and partial.usage.completion_tokens == 6
    assert server.counts.completion_tokens == 9 * 3 + 6
    server.configure(faults=[None] * 4 + [Fault.no_usage(), Fault.negative_usage()])
    assert (await ask(client)).usage is None
    assert (await ask(client)).usage.completion_tokens == -7


@pytest.mark.parametrize("after", [None, 20])
@pytest.mark.parametrize("stream", [False, True])
async def test_reset(server: LoopbackServer, client: AsyncOpenAI, after: int | None, stream: bool) -> None:
    server.configure(faults=Fault.first(2, Fault.reset(after=after)))
    # not always openai's own: while a stream is read, openai 2.x lets the HTTP library's error through, with no message
    with pytest.raises(Exception, match=r".*") as caught:
        async with asyncio.timeout(60):
            answer = await ask(client, stream=stream)
            await collect(answer)
    assert caught.type.__name__ in ("APIConnectionError", "ReadError")
    with pytest.raises(ConnectionResetError):
        raw(server, {**ASK, "stream": stream})
    assert (await ask(client)).choices
    counts = await asyncio.to_thread(server.wait)
    assert (counts.aborted, counts.completion_tokens, counts.faults) == (0, 9, 2)


async def test_close_mid_stream(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(faults=Fault.close_mid_stream(after=2))
    seen = []
    with pytest.raises(Exception, match=r"(?i)incomplete|closed|payload|connection"):
        async for chunk in await ask(client, stream=True):
            seen.append(chunk)  # noqa: PERF401 - those before the error are wanted
    assert len(seen) == 2
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    assert (await asyncio.to_thread(server.wait)).aborted == 0


async def test_streams_that_end_badly(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(faults=[Fault.stream_without_done(), Fault.stream_without_done(after=2), Fault.truncated_json()])
    whole = raw(server, {**ASK, "stream": True})
    assert b'"stop"' in whole and b"[DONE]" not in whole and whole.endswith(b"0\r\n\r\n")
    assert len([chunk async for chunk in await ask(client, stream=True)]) == 2
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        await collect(await ask(client, stream=True))


async def test_slow_trickle_defeats_a_read_timeout(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(faults=Fault.slow_trickle(interval=0.05, size=8))
    start = time.monotonic()
    answer = await ask(client.with_options(timeout=1.0))
    assert answer.choices[0].message.content == "it is 391" and time.monotonic() - start > 1.2


async def test_hang_ends_with_the_client(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(faults=Fault.hang())
    with pytest.raises(openai.APITimeoutError):
        await ask(client.with_options(timeout=1.0))
    counts = await asyncio.to_thread(server.wait)
    assert (counts.aborted, counts.completion_tokens, counts.aborted_completion_tokens) == (1, 0, 3)


def test_plans() -> None:
    fault, other = Fault.hang(), Fault.html()
    assert [Fault.every(3, fault)(i) is not None for i in range(6)] == [False, False, True] * 2
    both = Fault.first(1, fault) | Fault.every(2, other)
    assert [both(i) for i in range(4)] == [fault, other, None, other]
    hits = [Fault.random(0.3, seed=1)(i) is not None for i in range(1000)]
    assert 250 < sum(hits) < 350 and hits == [Fault.random(0.3, seed=1)(i) is not None for i in range(1000)]
    assert Fault.status(503).after(0).latency == 0
    for wrong in (lambda: Fault.status(200), lambda: Fault.every(0, fault), lambda: Fault.random(2)):
        with pytest.raises(ValueError):
            wrong()


async def test_faults_from_a_function_come_when_told(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(latency=60.0, faults=lambda number: Fault.status(503).after(0.0))
    start = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        await ask(client)
    assert time.monotonic() - start < 20


# when, and who is there


async def test_latency_is_what_it_says(server: LoopbackServer, client: AsyncOpenAI) -> None:
    await ask(client)
    server.configure(latency=0.05)
    took = []
    for _ in range(9):
        start = time.monotonic()
        await ask(client)
        took.append(time.monotonic() - start)
    assert 0.05 <= min(took) < 5  # the client's own time included
    server.configure(reply=lambda body, index: Reply("slow", latency=0.2 if index == 2 else 0.0))
    start = time.monotonic()
    await ask(client, n=3, seed=0)
    assert time.monotonic() - start >= 0.2
    assert all(0.1 <= Settings(latency=(0.1, 0.2)).latency_of(i) <= 0.2 for i in range(20))


async def test_peak_and_connections(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(latency=30.0)
    tasks = [asyncio.create_task(ask(client)) for _ in range(64)]
    counts = await asyncio.to_thread(server.wait, lambda counts: counts.active == 64)
    assert (counts.peak, counts.connections) == (64, 64)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()
    counts = await asyncio.to_thread(server.wait, lambda counts: counts.connections == 0)
    assert (counts.active, counts.peak) == (0, 64)


async def test_disconnect_is_an_abort(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(latency=30.0)
    tasks = [asyncio.create_task(ask(client, n=2)) for _ in range(5)]
    await asyncio.to_thread(server.wait, lambda counts: counts.active == 5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    counts = await asyncio.to_thread(server.wait)
    assert (counts.aborted, counts.aborted_choices, counts.aborted_completion_tokens) == (5, 10, 30)
    assert (counts.aborted_prompt_tokens, counts.completion_tokens, counts.tokens) == (25, 0, 55)


async def test_a_stream_left_early_costs_its_whole(server: LoopbackServer, client: AsyncOpenAI) -> None:
    server.configure(reply="a b c d e f", per_token=1.0)
    stream = await ask(client, stream=True)
    await anext(aiter(stream))
    await stream.close()
    counts = await asyncio.to_thread(server.wait)
    assert (counts.aborted, counts.aborted_completion_tokens, counts.completion_tokens) == (1, 6, 0)


async def test_serves_while_the_client_blocks_its_loop(server: LoopbackServer, client: AsyncOpenAI) -> None:
    assert raw(server, ASK).endswith(b"}")  # a blocking call inside a running loop


def test_stops_at_once_with_requests_in_flight() -> None:
    with LoopbackServer(faults=Fault.hang()) as server, socket.create_connection(("127.0.0.1", server.port)) as held:
        data = json.dumps(ASK).encode()
        held.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        server.wait(lambda counts: counts.active == 1)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 20 and server.counts.active == 1


def test_a_taken_port_is_an_error() -> None:
    with LoopbackServer() as server, pytest.raises(OSError, match="in use"):
        LoopbackServer(port=server.port).start()


# in a process of its own


async def test_process() -> None:
    faults = Fault.first(1, Fault.status(429)) | Fault.random(0.0)
    with LoopbackServer(process=True, reply=["a b", Reply("c", finish_reason="length")], faults=faults) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError):
                await ask(client)
            answer = await ask(client, n=2)
            assert [(c.message.content, c.finish_reason) for c in answer.choices] == [("a b", "stop"), ("c", "length")]
            assert (server.counts.requests, server.counts.completion_tokens, server.counts.connections) == (2, 3, 1)
            assert server.requests[1].body["n"] == 2 and server.requests[1].at <= time.monotonic()
            server.configure(reply=echo, latency=(0.01, 0.02), faults=None)
            server.reset()
            assert (await ask(client)).choices[0].message.content == "What is 17 times 23"
    assert server.counts.requests == 1 and len(server.requests) == 1  # still there after the end


@pytest.mark.parametrize(
    "options",
    [{"reply": lambda body, index: "x"}, {"faults": lambda number: None}, {"latency": lambda number: 0.1}],
    ids=lambda options: next(iter(options)),
)
def test_process_refuses_what_cannot_travel(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        LoopbackServer(process=True, **options).start()


def test_process_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with LoopbackServer() as taken, pytest.raises(RuntimeError, match="ended before it listened"):
        LoopbackServer(process=True, port=taken.port).start()
    assert "in use" in capfd.readouterr().err
