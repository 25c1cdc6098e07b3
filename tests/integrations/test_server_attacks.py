"""Requests and upstreams that mean harm: each gets an answer in OpenAI's form, and learns nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ASK, Serving, serving
from tts_plugins.server.upstream import hider
from tts_plugins.testing.loopback import LoopbackServer, RawReply, RawRequest, RawServer, event_stream

CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"
KEY = "sk-upstream-secret-key-77"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: ASK,
    RESPONSES: {"model": "loopback", "input": "x"},
    COMPLETIONS: {"model": "loopback", "prompt": "x", "max_tokens": 3},
    EMBEDDINGS: {"model": "loopback", "input": "x"},
}
_CHUNK = {"id": "a", "object": "chat.completion.chunk",
          "choices": [{"index": 0, "text": "hel", "delta": {"content": "hel"}, "finish_reason": None}]}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with LoopbackServer(reply="4") as upstream, serving(base_url=upstream.base_url) as server:
        yield server


def _with(path: str, field: str) -> bytes:
    return json.dumps(BODIES[path]).encode()[:-1] + b", " + field.encode() + b"}"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('"user": "\\ud800"', "user: "),
        ('"\\udfff": 1', "\\udfff: "),
        ('"top_p": 1e999', "too large"),
        ('"top_p": NaN', "NaN"),
        ('"user": "a", "user": "b"', "twice"),
        ('"metadata": {"a": 1, "a": 2}', "twice"),
        (f'"metadata": {"[" * 200}{"]" * 200}', "levels deep"),
        (f'"metadata": {"[" * 100000}{"]" * 100000}', "not valid JSON"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(served: Serving, path: str, field: str, said: str) -> None:
    status, body, _ = served.post(path, _with(path, field))
    assert status == 400 and said in body["error"]["message"] and body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"modalities": 5}, "modalities"),
        (CHAT, {"max_tokens": 10**300}, "max_tokens"),
        (CHAT, {"tts": {"budget": {"usd": 1e300}}}, "tts.budget.usd"),
        (CHAT, {"tts": {"budget": {"tokens": 10**300}}}, "tts.budget.tokens"),
        (CHAT, {"stream": True, "stream_options": {"include_usage": "a"}}, "stream_options.include_usage"),
        (COMPLETIONS, {"max_tokens": 10**300}, "max_tokens"),
        (COMPLETIONS, {"n": 10**300}, "n"),
        (COMPLETIONS, {"best_of": 65}, "best_of"),
        (RESPONSES, {"max_output_tokens": -3}, "max_output_tokens"),
        (RESPONSES, {"input": None}, "input"),
        (RESPONSES, {"input": [{"role": ["user"], "content": "x"}]}, "input[0].role"),
    ],
)
def test_values_beyond_all_measure_are_refused_by_the_callers_own_name(
    served: Serving, path: str, fields: dict[str, Any], param: str
) -> None:
    status, body, _ = served.post(path, {**BODIES[path], **fields})
    assert status == 400 and body["error"]["param"] == param and len(body["error"]["message"]) < 300


def test_ordinary_escapes_and_nesting_pass(served: Serving) -> None:
    deep = '"metadata": ' + '{"a": ' * 100 + '"\\ud83d\\ude00"' + "}" * 100
    assert served.post(CHAT, _with(CHAT, deep))[0] == 200


def test_a_prompt_that_is_hidden_from_the_bound_is_not_sent(tmp_path: Path) -> None:
    with LoopbackServer(reply="4") as upstream, serving(base_url=upstream.base_url, budget={"tokens": 300}) as served:
        for path, hidden in (
            (EMBEDDINGS, {"prompt": None, "input": "x" * 3000}),
            (COMPLETIONS, {"prompt": "x", "suffix": "y" * 3000, "max_tokens": 3}),
        ):
            status, body, _ = served.post(path, {"model": "loopback", **hidden})
            assert status == 429 and body["error"]["code"] == "insufficient_quota"
        assert upstream.counts.requests == 0


@contextmanager
def hostile(kind: str) -> Iterator[tuple[Serving, str]]:
    """A server whose upstream misbehaves, and quotes its own address and the key that it was sent."""

    def reply(request: RawRequest) -> RawReply:
        said = f"{request.headers.get('authorization')} may not ask {upstream.base_url}{request.path}"
        quoted = {"error": {"message": said, "code": "x"}}
        if kind == "redirect":
            return RawReply(b"", 307, {"Location": upstream.base_url.replace("/v1", "/elsewhere")})
        if kind == "breaks off":
            return dataclasses.replace(event_stream(_CHUNK, done=False), cut=True)
        if kind == "stream":
            return event_stream(_CHUNK, quoted)
        return RawReply(b"[" * 5000 if kind == "deep" else quoted, int(kind) if kind.isdigit() else 200)

    with (
        RawServer(reply) as upstream,
        serving(base_url=upstream.base_url, api_key_env="HOSTILE_KEY", timeout=30) as served,
    ):
        yield served, upstream.base_url.removeprefix("http://").removesuffix("/v1")


@pytest.mark.parametrize("kind", ["redirect", "deep", "200", "400", "401", "stream", "breaks off"])
def test_a_hostile_upstream_is_answered_for_and_shown_to_nobody(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOSTILE_KEY", KEY)
    with hostile(kind) as (served, address):
        seen = []
        for path in (CHAT, COMPLETIONS, EMBEDDINGS):
            body = {**BODIES[path], **({"stream": True} if path == CHAT else {})}
            status, answer, headers = served.post(path, body)
            seen += [json.dumps(answer), str(dict(headers))]
            shown = answer if isinstance(answer, str) else json.dumps(answer)
            assert '"error"' in shown and (status >= 400 or isinstance(answer, str)), (path, status, shown)
            assert status != 500 and not 300 <= status < 400
        status, answer, _ = served.get("/v1/models")
        assert status == 502 and answer["error"]["type"] == "api_error"
        seen.append(json.dumps(answer))
        solves = served.get("/view/api/solves")[1]
        for solve in solves:
            seen += [json.dumps(served.get(f"/view/api/solve/{solve['id']}{tail}")[1]) for tail in ("", "/trace.json")]
        assert solves and not [s for s in seen if KEY in s or address in s]
        assert "Traceback" not in caplog.text and KEY not in caplog.text
        assert served.quiet()


@pytest.mark.parametrize(
    ("address", "text", "shown"),
    [
        ("http://10.1.2.3:8000/v1", "at http://10.1.2.3:8000/v1/x, or 10.1.2.3:8000; 10.1.2.30 is another",
         "at …, or …; 10.1.2.30 is another"),
        ("https://llm.internal.example/v1", "see https://docs.example/a and LLM.internal.example.",
         "see https://docs.example/a and …."),
        ("http://vllm:8000/v1", "vllm serves; vllm:8000 and http://vllm/v1 do not", "vllm serves; … and … do not"),
        ("http://[::1]:8000/v1", "at http://[::1]:8000/v1", "at …"),
        ("http://me:pass-word-9@10.1.2.3/v1", "pass-word-9 at http://me:pass-word-9@10.1.2.3/v1", "… at …"),
    ],
)  # fmt: skip
def test_the_upstream_s_address_is_hidden_and_other_words_stay(address: str, text: str, shown: str) -> None:
    assert hider(None, address)(text) == shown
