"""What becomes of answers that are odd as HTTP, byte for byte: alike in each way that our models send."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import zlib
from typing import Any

import pytest

pytest.importorskip("openai")

from tests.waiting import until
from tests.wire import KEEP, Actions, WireServer, answer, in_chunks
from tts_plugins import Budget, Ledger, Problem, Result, SelfConsistency, solve
from tts_plugins.errors import (
    AllCandidatesFailed,
    ConfigurationError,
    ConnectionFailed,
    MalformedResponse,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    ServerFailed,
)
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.verifiers.process._http_client import JSONClient

pytestmark = pytest.mark.usefixtures("transport")
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def said(text: str, **usage: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": {**USAGE, **usage}}


GOOD = json.dumps(said("#### 4")).encode()
PACKED, TINY = gzip.compress(GOOD), zlib.compressobj(wbits=-15)
MEMBERS = gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:])
RAW_DEFLATE = TINY.compress(GOOD) + TINY.flush()
WAIT = {"error": {"message": "wait"}}


def model_at(server: WireServer, **settings: Any) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(
        "m", **{"base_url": server.base_url, "api_key": "-", "max_tokens": 40, "temperature": 0.8, **settings}
    )


async def solved(server: WireServer, ledger: Ledger, **settings: Any) -> Any:
    """The result of a solve with one candidate and two attempts, or the error that ended it."""
    model = model_at(server, **settings)
    try:
        return await solve("q", model=model, strategy=SelfConsistency(n=1), budget=ledger, attempts=2)
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return error.__cause__ if isinstance(error, AllCandidatesFailed) else error
    finally:
        await model.aclose()
        assert ledger.open_holds == 0


def events(*chunks: Any) -> bytes:
    return "".join(f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks).encode()


def piece(text: str | None = None, end: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": end}], **more}


CHUNKS = piece("####"), piece(" 4"), piece(end="stop"), {"choices": [], "usage": USAGE}

# Each is taken, costs what it says, and needs one request.
READ: dict[str, bytes] = {
    "plain": answer(GOOD),
    "HTTP/1.0": answer(GOOD, version="1.0"),
    "to the end of the connection": answer(GOOD, length=None),
    "in chunks": in_chunks(GOOD[:9], GOOD[9:]),
    "with a trailer": in_chunks(GOOD, end=b"0\r\nX-Took: 1\r\n\r\n"),
    "with a chunk's extension": in_chunks(GOOD).replace(b"\r\n" + GOOD, b";a=1\r\n" + GOOD),
    "gzip": answer(PACKED, 200, "Content-Encoding: GZIP"),
    "gzip by the byte": in_chunks(*[bytes([b]) for b in PACKED], headers=["Content-Encoding: gzip"]),
    "deflate": answer(zlib.compress(GOOD), 200, "Content-Encoding: deflate"),
    "deflate without a head": answer(RAW_DEFLATE, 200, "Content-Encoding: deflate"),
    "deflate without a head by the byte": in_chunks(
        *[bytes([b]) for b in RAW_DEFLATE], headers=["Content-Encoding: deflate"]
    ),
    "gzip in two members": answer(MEMBERS, 200, "Content-Encoding: gzip"),
    "gzip in two members by the byte": in_chunks(*[bytes([b]) for b in MEMBERS], headers=["Content-Encoding: gzip"]),
    "gzip and bytes behind it": answer(PACKED + b"\0\0\0", 200, "Content-Encoding: gzip"),
    "gzip and identity": answer(PACKED, 200, "Content-Encoding: identity, gzip"),
    "two encodings in two headers": answer(PACKED, 200, "Content-Encoding: gzip", "Content-Encoding: identity"),
    "a stream": answer(events(*CHUNKS, "[DONE]")),
    "a stream of comments and blanks": answer(b"\xef\xbb\xbf: waiting\n\ndata:\n\n" + events(*CHUNKS, "[DONE]")),
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(GOOD),
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n" + answer(GOOD),
    "201": answer(GOOD, 201),
    "no reason": answer(GOOD).replace(b" Said", b""),
    "only line feeds": answer(GOOD).replace(b"\r\n", b"\n"),
    "a cookie": answer(GOOD, 200, "Set-Cookie: a=b; Path=/"),
    "a header of 20 kB": answer(GOOD, 200, "X-Policy: " + "a" * 20_000),
    "a blank beginning": answer(b"\n\n\n" + GOOD),
    "BOM": answer(b"\xef\xbb\xbf" + GOOD),
    "half a character": answer(GOOD.replace(b"####", b"\\ud83d\\n####")),
    "bytes that are no text": answer(GOOD.replace(b"####", b"\xe9\\n####")),
    "a name twice": answer(GOOD.replace(b'{"choices"', b'{"choices": [], "choices"')),
    "an error that says nothing": answer({**said("#### 4"), "error": {"message": "", "type": "", "code": None}}),
    "an error of no choice": answer(GOOD.replace(b'"index": 0', b'"index": 0, "error": {"code": 0}')),
    "an error that says nothing, and no reason": answer(
        GOOD.replace(b'"stop"', b"null").replace(b'{"choices"', b'{"error": "null", "choices"')
    ),
    "a stream of errors that say nothing": answer(
        events(*({**chunk, "error": {"code": 0, "message": "OK"}} for chunk in CHUNKS), "[DONE]")
    ),
    "a stream and junk": answer(events(*CHUNKS, "[DONE]", "{junk")),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sent", READ.values(), ids=READ.keys())
async def test_what_can_be_read_is_read(sent: bytes, stream: bool) -> None:
    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(lambda number, head: [sent]) as server:
        end = await solved(server, ledger, stream=stream)
    assert isinstance(end, Result) and end.answer == "4", end
    assert ledger.spent.tokens == 15 and len(server.requests) == 1


@pytest.mark.parametrize(
    "left",
    [[], [events(piece(" more"))], [events({"error": {"message": "late"}})], [answer(b"", length=None)], None],
    ids=["open", "something more", "an error", "junk", "cut"],
)
@pytest.mark.parametrize("late", [False, True])
async def test_what_is_done_is_whole(left: list[bytes] | None, late: bool) -> None:
    """Regression: where a server left the answer open after its end, or broke it off, a paid reply was lost."""
    said = events(*CHUNKS[:3], "[DONE]", CHUNKS[3]) if late else events(*CHUNKS, "[DONE]")
    open_ = asyncio.Event()
    sent = in_chunks(said, *(left or []), headers=["Content-Type: text/event-stream"], end=b"")
    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(lambda number, head: [sent] if left is None else [sent, open_]) as server:
        end = await solved(server, ledger, stream=True, timeout=30)
    assert isinstance(end, Result) and end.answer == "4", end
    assert ledger.spent.tokens == 15 and len(server.requests) == 1


async def test_the_end_needs_no_blank_line() -> None:
    """Regression: a server that leaves none between events, and the answer open, was waited for too long."""
    lines, open_ = events(*CHUNKS, "[DONE]").replace(b"\n\n", b"\n"), asyncio.Event()
    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(lambda number, head: [in_chunks(lines, end=b""), open_]) as server:
        end = await solved(server, ledger, stream=True, timeout=30)
    assert isinstance(end, Result) and end.answer == "4", end
    assert ledger.spent.tokens == 15 and len(server.requests) == 1


@pytest.mark.parametrize("words", ["", "{}", "null"])
async def test_an_event_that_is_called_an_error_is_one_whatever_it_says(words: str) -> None:
    """Regression: half an answer was taken for a whole one, if the error after it said nothing."""
    sent = events(*CHUNKS[:1]) + f"event: error\ndata: {words}\n\n".encode() + events("[DONE]")
    async with WireServer(lambda number, head: [answer(sent)]) as server:
        end = await solved(server, Ledger(Budget(tokens=5000)), stream=True)
    assert type(end) is ServerFailed, end


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [({"code": 429, "message": "slow down"}, RateLimited), ({"code": 402, "message": "slow down"}, QuotaExhausted)],
)
@pytest.mark.parametrize("reason", ["error", None])
async def test_an_error_beside_a_choice_is_its_end(
    error: dict[str, Any], kind: type[Exception], reason: str | None, stream: bool
) -> None:
    """Regression: of an error beside its choice, as OpenRouter has it, nothing was said, or half a text was taken."""
    broken = {"choices": [{**said("####")["choices"][0], "finish_reason": reason}], "error": error}
    sent = events(piece("####"), piece("", reason, error=error)) if stream else json.dumps(broken).encode()
    async with WireServer(lambda number, head: [answer(sent, 200)]) as server:
        end = await solved(server, Ledger(Budget(tokens=5000)), stream=stream)
    assert type(end) is kind and "slow down" in str(end), end


# Each is an error of a kind, with what two attempts cost: nothing, or their bounds.
FAILED: dict[str, tuple[Actions, type[Exception], bool]] = {
    "nothing": ([], ConnectionFailed, True),
    "half a head": ([b"HTTP/1.1 200 OK\r\nContent-"], ConnectionFailed, True),
    "no HTTP": ([b"220 mail.example ESMTP\r\n"], ConnectionFailed, True),
    "a body that is cut": ([answer(GOOD, length=5000)], ConnectionFailed, True),
    "chunks that are cut": ([in_chunks(GOOD, end=b"")], ConnectionFailed, True),
    "chunks of no size": ([in_chunks(GOOD).replace(b"\r\n" + GOOD, b"zz\r\n" + GOOD)], ConnectionFailed, True),
    "gzip that is cut": ([answer(PACKED[:-20], 200, "Content-Encoding: gzip")], MalformedResponse, True),
    "gzip that is none": ([answer(GOOD, 200, "Content-Encoding: gzip")], MalformedResponse, True),
    "brotli": ([answer(GOOD, 200, "Content-Encoding: br")], MalformedResponse, True),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], MalformedResponse, True),
    "300": ([answer(b"choose", 300)], RequestRefused, False),
    "429 in brotli": ([answer(b"\x01\x02", 429, "Content-Encoding: br", "Retry-After: 0")], RateLimited, False),
    "429 that is cut": ([answer(b'{"err', 429, "Retry-After: 0", length=900)], RateLimited, False),
    "400 that is cut": ([answer(b'{"err', 400, length=900)], RequestRefused, False),
    "500 that is cut": ([answer(b'{"err', 500, "Retry-After: 0", length=900)], ServerFailed, True),
    "500 of broken gzip": ([answer(b"x", 500, "Content-Encoding: gzip", "Retry-After: 0")], ServerFailed, True),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("sent", "kind", "charged"), FAILED.values(), ids=FAILED.keys())
async def test_what_cannot_be_read_fails_alike(
    sent: Actions, kind: type[Exception], charged: bool, stream: bool
) -> None:
    """Regression: through OpenAI's client a status was lost where its body broke, and a refusal was charged."""
    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(lambda number, head: sent) as server:
        end = await solved(server, ledger, stream=stream)
    assert type(end) is kind, end
    assert (ledger.spent.tokens > 0) is charged and ledger.spent.tokens <= 40 * 2 + 2 * 150


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/v1/moved", "/v1/chat/completions", "", "?again=1"])
async def test_a_redirect_is_followed_as_it_is_or_said(status: int, where: str) -> None:
    """Regression: OpenAI's client went on with a GET, 20 times, and each attempt was charged."""

    def answers(number: int, head: bytes) -> Actions:
        moved = head.startswith(b"POST /v1/moved ")
        return [answer(GOOD)] if moved else [answer(b"", status, f"Location: {where}")]

    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(answers) as server:
        end = await solved(server, ledger)
    assert all(line.startswith("POST ") for line, _ in server.requests) and len(server.requests) <= 6
    if where == "/v1/moved" and status in (307, 308):
        assert isinstance(end, Result) and ledger.spent.tokens == 15, end
    else:
        assert isinstance(end, ConfigurationError) and "redirect" in str(end).lower(), end
        assert ledger.spent.tokens == ledger.spent.calls == 0


@pytest.mark.parametrize(
    "sent",
    [
        answer(GOOD, 200, f"Content-Length: {len(GOOD)}"),
        answer(in_chunks(GOOD).partition(b"\r\n\r\n")[2], 200, "Transfer-Encoding: chunked"),
        answer(GOOD, version="1.2"),
        answer(GOOD, 200, *(f"X-{i}: 1" for i in range(300))),
        answer(GOOD) + b"and more",
    ],
    ids=["a length twice", "a length and chunks", "another version", "300 headers", "more than its length"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_aiohttp_does_not_understand_is_asked_by_another_client(sent: bytes, stream: bool) -> None:
    """Regression: such a server, which OpenAI's client can read, could not be used at all."""
    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(lambda number, head: [sent]) as server:
        end = await solved(server, ledger, stream=stream)
    assert isinstance(end, Result) and end.answer == "4" and len(server.requests) <= 2, end


async def test_a_verifier_asks_such_a_server_by_another_client_too() -> None:
    sent = answer(GOOD, 200, f"Content-Length: {len(GOOD)}")
    async with WireServer(lambda number, head: [sent]) as server:
        client = JSONClient(server.base_url, {}, 30.0, "verifier")
        with contextlib.suppress(ConnectionFailed):  # of aiohttp, if the test is run with that
            await client.post("", {})
        assert (await client.post("", {}))["usage"] == USAGE
        await client.close()


async def test_what_an_error_says_is_found_in_its_cause_alike() -> None:
    body = {"error": {"message": "no", "type": "invalid_request_error", "param": "top_p", "code": "bad"}}
    sent = answer(body, 400, "x-request-id: req-1")
    async with WireServer(lambda number, head: [sent]) as server:
        cause: Any = (await solved(server, Ledger())).__cause__
    assert (cause.status_code, cause.request_id) == (400, "req-1")
    assert (cause.code, cause.param, cause.type) == ("bad", "top_p", "invalid_request_error")


async def test_the_wait_that_google_asks_for_is_kept() -> None:
    """Regression: it is in the body alone, so the request was repeated at once, and refused again."""
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    error = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [delay]}
    async with WireServer(lambda number, head: [answer([{"error": error}], 429)]) as server:
        model = model_at(server)
        with pytest.raises(RateLimited) as caught:
            await model.generate(Problem("q"), [1])
        await model.aclose()
    assert caught.value.retry_after == 34.5


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0.0.0.0", "LOCALHOST"])
async def test_a_server_is_found_under_any_name_of_its_machine(host: str) -> None:
    """Regression: aiohttp refuses an address in short, which OpenAI's client takes."""
    async with WireServer(lambda number, head: [answer(GOOD)]) as server:
        end = await solved(server, Ledger(), base_url=server.base_url.replace("127.0.0.1", host))
    assert isinstance(end, Result) and end.answer == "4", end


# Connections that are kept --------------------------------------------------------------------------------------------


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    """Regression: without a turn of the loop in between, the next request went into it, and was lost and charged."""

    async def ask(model: OpenAICompatibleModel) -> str:
        return (await model.generate(Problem("q"), [1])).generations[0].text

    async with WireServer(lambda number, head: [answer(said(f"{number}"))]) as server:
        model = model_at(server)
        try:
            assert [await ask(model) for _ in range(8)] == [f"{i}" for i in range(8)]
        finally:
            await model.aclose()
    assert server.connections == 8


async def test_what_nobody_asked_for_answers_nothing() -> None:
    """Regression: an answer that came on an idle connection was taken for that to the next request, and so on."""
    idle = asyncio.Event()

    def answers(number: int, head: bytes) -> Actions:
        return [answer(said(f"{number}")), *([] if number else [idle, answer(said("unasked"))]), KEEP]

    async with WireServer(answers) as server:
        model, texts = model_at(server), []
        try:
            for _ in range(3):
                texts.append((await model.generate(Problem("q"), [1])).generations[0].text)
                idle.set()
                await until(lambda: server.done >= 4)
        finally:
            await model.aclose()
    assert texts == ["0", "1", "2"] and server.connections == 2


@pytest.mark.parametrize("many", [5, 6])
async def test_the_answer_after_the_last_redirect_is_taken(many: int) -> None:
    """Regression: through aiohttp it was thrown away, and cost nothing."""

    def answers(number: int, head: bytes) -> Actions:
        return [answer(GOOD)] if len(server.requests) > many else [answer(b"", 307, "Location: /v1/moved")]

    ledger = Ledger(Budget(tokens=5000))
    async with WireServer(answers) as server:
        end = await solved(server, ledger)
    assert len(server.requests) == 6
    if many == 5:
        assert isinstance(end, Result) and ledger.spent.tokens == 15, end
    else:
        assert isinstance(end, ConfigurationError) and ledger.spent.calls == 0, end


@pytest.mark.parametrize(("status", "kind"), [(400, RequestRefused), (429, RateLimited), (503, ServerFailed)])
async def test_an_error_that_says_where_more_is_to_be_read_is_no_redirect(status: int, kind: type[Exception]) -> None:
    """Regression: it was taken for one, so that a full server was an error of the settings, and not tried again."""
    sent = answer(b"{}", status, "Location: https://status.example/", "Retry-After: 0")
    async with WireServer(lambda number, head: [sent]) as server:
        end = await solved(server, Ledger(Budget(tokens=5000)))
    assert isinstance(end, kind) and len(server.requests) == (1 if status == 400 else 2), end
