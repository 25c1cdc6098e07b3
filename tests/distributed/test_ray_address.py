"""An address that is not there: an error within 10 seconds, where Ray itself did not return."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tts_plugins.distributed.connection import _probe, connect
from tts_plugins.errors import ConfigurationError


@pytest.fixture
def silent() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    yield sock
    sock.close()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def refused(address: str) -> str:
    started = time.monotonic()
    with pytest.raises(ConfigurationError) as caught:
        _probe(address)
    assert time.monotonic() - started < 30
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_there(scheme: str) -> None:
    assert "nothing answers there" in refused(f"{scheme}127.0.0.1:{closed_port()}")


def test_a_name_that_is_none() -> None:
    assert "nothing answers there" in refused("no-such-host.invalid:6379")


def test_a_server_that_says_nothing(silent: socket.socket) -> None:
    assert "nothing answers there" in refused(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_of_another_kind(silent: socket.socket) -> None:
    def answer() -> None:
        connection, _ = silent.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert "no Ray cluster" in refused(f"127.0.0.1:{silent.getsockname()[1]}")
    thread.join()


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:port", "host:99999", "ray://"])
def test_what_is_no_address(address: str) -> None:
    assert "is not an address" in refused(address)


def test_auto_without_a_cluster(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if not ray.is_initialized():
        with pytest.raises(ConfigurationError, match="ray start --head"):
            connect("auto")
