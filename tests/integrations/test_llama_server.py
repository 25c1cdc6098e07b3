"""The real llama.cpp engine on the real weights."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tts_plugins.errors import ConfigurationError, WeightsError
from tts_plugins.models._llama_cpp.server import LlamaServer
from tts_plugins.models._llama_cpp.weights import embedded_weights

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def weights() -> Path:
    return embedded_weights()


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[LlamaServer]:
    with LlamaServer(weights, context=256, slots=4, threads=1) as running:
        yield running


def chat(server: LlamaServer, **settings: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8, **settings}
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_it_answers_and_the_seeds_of_n_choices_count_up(server: LlamaServer) -> None:
    three = [c["message"]["content"] for c in chat(server, n=3, seed=7, temperature=1.0)["choices"]]
    single = [chat(server, seed=7 + i, temperature=1.0)["choices"][0]["message"]["content"] for i in range(3)]
    assert len(set(three)) > 1
    assert three[0] == single[0], "a batch of three may round differently from a batch of one, but starts at its seed"


def test_more_choices_than_slots_are_refused(server: LlamaServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        chat(server, n=5)
    with caught.value as reply:
        assert "'n'" in json.load(reply)["error"]["message"]


def test_more_requests_than_slots_are_queued(server: LlamaServer) -> None:
    replies: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda i=i: replies.append(chat(server, seed=i))) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 9


def test_a_prompt_over_the_context_is_refused(server: LlamaServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        chat(server, messages=[{"role": "user", "content": "word " * 300}])
    with caught.value as reply:
        error = json.load(reply)["error"]
    assert error["type"] == "exceed_context_size_error" and error["n_ctx"] == 256 < error["n_prompt_tokens"]


def test_an_assistant_prefix_comes_back_in_the_reply(server: LlamaServer) -> None:
    said = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "The colour I like is"}]
    assert chat(server, messages=said)["choices"][0]["message"]["content"].startswith("The colour I like is")


def test_two_servers_from_other_threads_and_nothing_on_the_terminal(
    weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found: list[LlamaServer] = []
    handler = signal.getsignal(signal.SIGINT)
    threads = [
        threading.Thread(target=lambda: found.append(LlamaServer(weights, context=256, slots=1, threads=1)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with found[0] as one, found[1] as other:
        assert one.base_url != other.base_url
        assert chat(one, temperature=0)["choices"] == chat(other, temperature=0)["choices"]
    assert signal.getsignal(signal.SIGINT) is handler
    assert capfd.readouterr() == ("", "")


def test_close_with_a_request_in_flight_is_prompt_and_frees_everything(weights: Path) -> None:
    server = LlamaServer(weights, context=2048, slots=1, threads=1)
    host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        time.sleep(0.3)
        began = time.perf_counter()
        server.close()
        assert time.perf_counter() - began < 20
    assert not server.alive
    server.close()


OPEN_AT_EXIT = """
import os, sys
from tts_plugins.models._llama_cpp.server import LlamaServer
server = LlamaServer(sys.argv[1], context=256, slots=1, threads=1)
print(server.pid, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks after processes in the POSIX way")
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_server_ends_with_its_owner(weights: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AT_EXIT, str(weights), end], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == (0 if end == "exit" else -9)
    pid, until = int(done.stdout), time.monotonic() + 10
    while running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not running(pid)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody has reaped yet has ended all the same
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "cannot be read: No such file"),
        (lambda head: b"", "is not a GGUF file"),
        (lambda head: b"a text file of some length", "is not a GGUF file"),
        (lambda head: head[:10], "is truncated: 10 bytes"),
        (lambda head: head[:4] + b"\x63" + head[5:], "GGUF version 99"),
        (lambda head: head[:4_000_000], "llama.cpp cannot load .*not within the file bounds"),
        (lambda head: head[:16] + b"\xff" * 8 + head[24:], "llama.cpp cannot load"),
    ],
)
def test_bad_files_are_one_line_that_names_the_path(weights: Path, tmp_path: Path, damage: Any, said: str) -> None:
    path = tmp_path / "bad.gguf"
    if damage:
        with weights.open("rb") as file:
            path.write_bytes(damage(file.read(4_000_000)))
    with pytest.raises(WeightsError, match=said) as caught:
        LlamaServer(path, threads=1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_settings(weights: Path) -> None:
    with pytest.raises(ConfigurationError, match="slots=0"):
        LlamaServer(weights, slots=0)


def test_start_has_a_time_limit(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"did not load .* in 0\.05 s"):
        LlamaServer(weights, threads=1, ready_seconds=0.05)
