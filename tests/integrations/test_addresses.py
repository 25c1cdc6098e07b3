"""An address with a login, and answers that are compressed as nobody asked: whoever sends the request."""

from __future__ import annotations

import base64
import gzip
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tts_plugins import BestOfN, Budget, Ledger, Problem, solve, solve_sync
from tts_plugins.errors import AllCandidatesFailed, TTSError
from tts_plugins.models import EmbeddingModel, OpenAICompatibleModel
from tts_plugins.server.settings import ServerSettings
from tts_plugins.server.upstream import Upstream
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.loopback import RawReply, RawRequest, RawServer
from tts_plugins.verifiers import ProcessVerifierHTTP

PASSWORD = "pass-word-91"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "It is 4."}, "finish_reason": "stop"}
ANSWER = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [MESSAGE], "usage": USAGE}


def answered(request: RawRequest) -> RawReply:
    if request.path.endswith("/pooling"):
        return RawReply({"data": [{"data": [[0.1, 0.9]]}], "usage": USAGE})
    if request.path.endswith("/embeddings"):
        return RawReply({"data": [{"embedding": [0.1, 0.2], "index": 0}], "usage": USAGE})
    return RawReply({"object": "list", "data": [{"id": "m"}]} if request.path.endswith("/models") else ANSWER)


@pytest.fixture(params=["aiohttp", "openai"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TTS_PLUGINS_TRANSPORT", request.param)
    yield request.param


def asked(address: str, **settings: Any) -> Any:
    model = OpenAICompatibleModel("m", base_url=address, max_tokens=20, **{"api_key": "-", **settings})
    return solve_sync("2 + 2?", model=model, strategy=BestOfN(n=1), attempts=1)


def scored(address: str, **settings: Any) -> Any:
    verifier = ProcessVerifierHTTP("rm", base_url=address, **settings)
    return solve_sync("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=1), attempts=1)


def embedded(address: str, **settings: Any) -> Any:
    model = EmbeddingModel("e", base_url=address, **{"api_key": "-", **settings})
    return solve_sync("q", model=model, strategy=BestOfN(n=1), attempts=1)


CALLS: list[Callable[..., Any]] = [asked, scored, embedded]


@pytest.mark.parametrize("key", [None, "sk-of-a-server"])
@pytest.mark.parametrize("call", CALLS)
def test_a_login_in_an_address_is_sent_as_one(call: Callable[..., Any], key: str | None, transport: str) -> None:
    """Regression: a process verifier's was taken for a part of the host."""
    with RawServer(answered) as server:
        call(server.base_url.replace("://", f"://al%40ice:{PASSWORD}@"), **({} if key is None else {"api_key": key}))
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == [f"Basic {base64.b64encode(f'al@ice:{PASSWORD}'.encode()).decode()}"]


@pytest.mark.parametrize("call", CALLS)
def test_a_login_in_an_address_shows_in_no_error(call: Callable[..., Any], transport: str) -> None:
    said = RawReply({"error": {"message": f"{PASSWORD} is wrong"}}, status=401)
    with RawServer(lambda request: said) as server, pytest.raises(TTSError) as caught:
        call(server.base_url.replace("://", f"://alice:{PASSWORD}@"))
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = "".join(part for part in shown.format() if "test_addresses.py" not in part)
    assert PASSWORD not in ours and base64.b64encode(f"alice:{PASSWORD}".encode()).decode() not in ours


@pytest.mark.parametrize("key", [None, "sk-of-a-server"])
async def test_a_proxy_of_ours_sends_a_login_too(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: beside a key, aiohttp refused the login in the address of `serve --base-url`."""
    monkeypatch.setenv("HOUSE_KEY", key or "")
    with RawServer(answered) as server:
        address = server.base_url.replace("://", f"://alice:{PASSWORD}@")
        upstream = Upstream(ServerSettings(base_url=address, api_key_env="HOUSE_KEY" if key else None))
        assert [model["id"] for model in await upstream.list()] == ["m"]
        await upstream.aclose()
    assert server.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_compressed_as_nobody_asked_is_told_at_once_and_charged(
    encoding: str, stream: bool, transport: str
) -> None:
    """Regression: it was asked for four times."""
    ledger = Ledger(Budget(tokens=5000))
    with RawServer(lambda request: RawReply(b"\x0b\x02\x80abc\x03", headers={"Content-Encoding": encoding})) as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=20, stream=stream)
        bound = await model.bound(Problem("2 + 2?"))
        with pytest.raises(AllCandidatesFailed, match=f"compressed as '{encoding}', and gzip, deflate was asked for"):
            await solve("2 + 2?", model=model, strategy=BestOfN(n=1), budget=ledger)
        await model.aclose()
    assert len(server.requests) == 1 and "br" not in server.requests[0].headers["accept-encoding"]
    assert ledger.spent.tokens == bound.amount.tokens > 0


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_a_process_verifier_s_too(encoding: str, transport: str) -> None:
    with (
        RawServer(lambda request: RawReply(b"\x0b\x02\x80abc\x03", headers={"Content-Encoding": encoding})) as server,
        pytest.raises(AllCandidatesFailed, match="compressed as"),
    ):
        verifier = ProcessVerifierHTTP("rm", base_url=server.base_url)
        solve_sync("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=1))
    assert len(server.requests) == 1


def test_a_process_verifier_reads_what_is_compressed_unasked(transport: str) -> None:
    """Regression: the standard library's client does not decompress."""

    def packed(request: RawRequest) -> RawReply:
        return RawReply(
            gzip.compress(json.dumps(answered(request).body).encode()), headers={"Content-Encoding": "gzip"}
        )

    with RawServer(packed) as server:
        assert scored(server.base_url).best.score == 0.9


def test_a_wrong_address_of_serve_does_not_show_its_login(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    from tts_plugins.cli import main

    for scheme in ("htp", "ws", ""):
        assert main(["serve", "--base-url", f"{scheme}://alice:{PASSWORD}@h/v1", "--port", "0", "--model", "m"]) == 2
        err = capsys.readouterr().err
        assert PASSWORD not in err and "--base-url" in err and "ServerSettings" not in err
