"""The parts below every request: JSON as bytes, proxies by the environment, pools that are shared and closed."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import zlib

import pytest

pytest.importorskip("aiohttp")

from multidict import CIMultiDict

from tts_plugins._http.choice import uses_aiohttp
from tts_plugins._http.pool import Lease
from tts_plugins._http.proxies import proxy_for
from tts_plugins._http.tls import tls_context
from tts_plugins._internal.http_errors import retry_after
from tts_plugins._internal.http_limits import BodyReader
from tts_plugins._internal.json_bytes import decode, encode
from tts_plugins._internal.secrets import secrets_in, secrets_of_request
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Candidate, Deferred, Generation, Problem, Scored, held_output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": Infinity}', {"a": math.inf}),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "line\nbreak"}', {"a": "line\nbreak"}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a": "\xff"}', {"a": "�"}),
    ],
)
def test_what_a_strict_reader_refuses_is_read(text: bytes, value: object) -> None:
    found = decode(text)
    assert found == value or found["a"] == pytest.approx(value["a"])  # type: ignore[index]


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b'{"a": 1} x', b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize("value", [{"a": math.nan}, {"a": [None, math.inf]}, {"a": object()}, {"a": "\ud83d"}])
def test_what_has_no_form_in_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_what_the_standard_library_writes_is_written() -> None:
    for value in ({1: "a"}, {"a": None, "b": "null"}, {"a": 2**70}, {"a": "ü", "b": (1, 2)}):
        assert json.loads(encode(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("url", "no", "proxied"),
    [
        ("https://api.test/v1", "", True),
        ("https://api.test/v1", "*", False),
        ("https://api.test/v1", "api.test", False),
        ("https://www.api.test/v1", "api.test", False),
        ("https://wwwapi.test/v1", "api.test", True),
        ("https://api.test/v1", ".api.test", True),
        ("https://www.api.test/v1", ".api.test", False),
        ("https://www.api.test/v1", "*.api.test", False),
        ("https://api.test/v1", "other.test, api.test", False),
        ("https://API.test/v1", "api.TEST", False),
        ("https://api.test:8443/v1", "api.test:8443", False),
        ("https://api.test/v1", "api.test:8443", True),
        ("https://api.test/v1", "http://api.test", True),
        ("https://api.test/v1", "https://api.test", False),
        ("https://10.1.2.3/v1", "10.0.0.0/8", False),
        ("https://11.1.2.3/v1", "10.0.0.0/8", True),
        ("https://[2001:db8::1]/v1", "2001:db8::1", False),
        ("http://127.0.0.1:8000/v1", "", False),
        ("http://localhost:8000/v1", "", False),
        ("http://[::1]:8000/v1", "", False),
        ("http://0.0.0.0:8000/v1", "", False),
    ],
)
def test_the_proxy_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, no: str, proxied: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (proxy_for(url) is not None) is proxied


def test_a_scheme_s_own_proxy_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "all.test:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pass@secure.test:2")
    assert proxy_for("https://api.test") == "http://user:pass@secure.test:2"
    assert proxy_for("http://api.test") == "http://all.test:1"


def test_what_aiohttp_has_no_words_for_is_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses_aiohttp("https://api.test/v1")
    assert not uses_aiohttp("https://user:pass@api.test/v1") and not uses_aiohttp("https://api.test/v1?a=1")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.test:1080")
    assert not uses_aiohttp("https://api.test/v1") and uses_aiohttp("http://127.0.0.1/v1")
    monkeypatch.setenv("TTS_PLUGINS_TRANSPORT", "openai")
    assert not uses_aiohttp("http://127.0.0.1/v1")
    monkeypatch.setenv("TTS_PLUGINS_TRANSPORT", "curl")
    with pytest.raises(ConfigurationError, match="TTS_PLUGINS_TRANSPORT='curl' is not known"):
        uses_aiohttp("http://127.0.0.1/v1")


async def test_a_pool_is_shared_by_address_and_closed_by_the_last() -> None:
    first, second, other = Lease("http://a.test/v1"), Lease("http://a.test/v2"), Lease("http://b.test/v1")
    assert first.pool is second.pool and first.pool is not other.pool
    await first.close()
    await first.close()
    assert not second.pool.session.closed
    await second.close()
    assert second.pool.session.closed and not other.pool.session.closed
    again = Lease("http://a.test/v1")
    assert again.pool is not first.pool
    # No limit of its own for a connection: whoever asks has one for the whole call.
    limits = again.pool.session.timeout
    assert (limits.total, limits.connect, limits.sock_connect, limits.sock_read) == (None,) * 4
    await again.close()
    await other.close()


async def test_a_server_that_was_not_understood_is_tried_again_by_one_request_after_a_while() -> None:
    """Regression: after one such answer no request of the loop went by aiohttp, however long it lived."""
    lease = Lease("http://a.test/v1")
    pool = lease.pool
    assert pool.usable(0) and pool.usable(1)
    pool.misunderstood(99, 100)
    assert not pool.usable(159)
    assert [pool.usable(161), pool.usable(161), pool.usable(200)] == [True, False, False]
    for _ in range(1000):
        pool.misunderstood(161, 201)  # all were under way at once, and say the same
    assert not pool.usable(320) and pool.usable(322)  # it waits twice as long
    pool.understood(200)  # it was under way as the last one was misunderstood
    assert not pool.usable(323)
    pool.understood(322)
    assert pool.usable(323) and pool.usable(323)
    await lease.close()


def test_each_loop_has_its_pool_and_all_share_one_tls_context() -> None:
    async def pool() -> object:
        lease = Lease("https://a.test/v1")
        await lease.close()
        return lease.pool

    assert asyncio.run(pool()) is not asyncio.run(pool())
    assert tls_context() is tls_context()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("2", 2), (" 1.5 ", 1.5), ("1, 3", 3), ("5s", 5), ("Thu, 01 Jan 1970 00:00:30 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None), ("-1", None), ("nan", None), ("inf", None), ("", None), (",", None),
        ("soon", None), ("9" * 400, None), ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 99 Foo 2024 99:99:99 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None), ("0 0 0 0 0", None),
    ],
)  # fmt: skip
def test_a_wait_that_a_server_asks_for_is_read_or_left(said: str, seconds: float | None) -> None:
    """Regression: a date that no calendar has was an error of its own, which nobody tried again."""
    assert retry_after({"retry-after": said}, now=10) == seconds


def test_of_several_waits_the_longest_is_kept() -> None:
    assert retry_after(CIMultiDict([("Retry-After", "1"), ("retry-after", "3")]), now=10) == 3
    assert retry_after({"retry-after-ms": "50", "retry-after": "7"}, now=10) == 0.05


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**16 + 90, 2**17 + 90])
@pytest.mark.parametrize("bits", [-15, 15, 31])
def test_the_end_of_what_is_decompressed_comes_though_all_of_it_was_read(size: int, bits: int) -> None:
    """Regression: without a checksum behind it, what one step had no room for was lost."""
    packer = zlib.compressobj(9, wbits=bits)
    packed = packer.compress(b"a" * size) + packer.flush()
    reader = BodyReader("gzip" if bits == 31 else "deflate")
    assert sum(map(len, reader.feed(packed))) == size


def test_keys_in_a_query_or_a_body_are_known_wherever_they_stand() -> None:
    """Regression: of a name that is there twice, only the last was, and none of those in lists."""
    twice = secrets_in({}, url="http://h/v1?key=first-key&key=second-key&auth=third-key&author=someone")
    assert twice == {"first-key", "second-key", "third-key"}
    tool = {"type": "mcp", "authorization": "fourth-key", "headers": {"Cookie": "fifth-key"}, "api_keys": ["sixth-key"]}
    assert secrets_of_request({"extra_body": {"tools": [tool]}}) == {"fourth-key", "fifth-key", "sixth-key"}


def built(text: str) -> list[str]:
    return [text]


def test_a_native_object_is_built_once_and_when_it_is_asked_for() -> None:
    made = Generation(text="x", output=Deferred(built, "x"))
    kept = made.replace(tokens=3)
    candidate = Scored.of(Candidate(Problem("q"), output=held_output(kept)), score=0.5)
    assert isinstance(held_output(candidate), Deferred)
    assert candidate.output == ["x"] and candidate.output is made.output is kept.output
    assert pickle.loads(pickle.dumps(Generation(text="x", output=Deferred(built, "x")))).output == ["x"]
    assert Generation(text="x").output is None and Candidate(Problem("q")).output is None
    assert made == Generation(text="x", output=["x"])
