"""Joining a Ray cluster, or starting one here: what is wrong is said before Ray waits for it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tts_plugins._version import __version__
from tts_plugins.errors import ConfigurationError, MissingExtraError

NAMESPACE = "tts_plugins"
_SECONDS = 3.0  # for a server to accept a connection, and again to answer
# What a client of HTTP/2 begins with, and an empty SETTINGS frame; every gRPC server answers with one of its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_SETTINGS = 4


def ray_module() -> Any:
    """Return the package `ray`.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("tts_plugins.distributed needs ray: pip install 'tts-plugins[ray]'") from error
    return ray


def connect(address: str | None, **options: Any) -> None:
    """Join the cluster at an address unless this process is in one; without an address, start one on this machine.

    Args:
        address: "host:port" of its head, "ray://host:port", or "auto" for the one that runs on this machine.
        options: for `ray.init`.

    Raises:
        ConfigurationError: nothing answers there, or what answers is not Ray, or is another version of it; or this
            process is in another cluster already.
    """
    ray = ray_module()
    if ray.is_initialized():
        _check_joined(address)
        return
    given: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        **options,
    }
    if address in (None, "local"):
        with _own_signals():
            ray.init(address="local", include_dashboard=False, **given)
        return
    where = _found() if address == "auto" else str(address)
    _probe(where)
    try:
        with _own_signals():
            ray.init(address=where, **given)
    except (RuntimeError, ConnectionError, ImportError, ValueError) as error:
        said = " ".join(str(error).split())[:400]
        raise ConfigurationError(
            f"RayEngine: address={address!r} cannot be joined ({said}); this process has Python "
            f"{platform.python_version()} and Ray {ray.__version__}: give the cluster the same, and the port of its "
            "head, usually 6379 (10001 for ray://)"
        ) from error


def membership() -> tuple[str, str] | None:
    """Return what changes where this process leaves its cluster, or joins another; None if it is in none."""
    ray = ray_module()
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return str(context.gcs_address), str(context.get_job_id())


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the program's way to end at SIGTERM: Ray takes the signal over, and prints the stacks of its own code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # Ray's answer to SIGTERM while it started
        if not callable(before):
            raise
        before(signal.SIGTERM, None)
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_joined(address: str | None) -> None:
    """Raise unless the cluster that this process is in is that at the address."""
    if address in (None, "local", "auto") or str(address).startswith("ray://"):
        return
    here = str(ray_module().get_runtime_context().gcs_address)
    if not _same(str(address), here):
        raise ConfigurationError(
            f"RayEngine: address={address!r}: this process is in the cluster at {here} already; leave the address out, "
            "or call ray.shutdown() first"
        )


def _same(one: str, other: str) -> bool:
    """Return whether two addresses are of one server, which this machine's loopback address may stand for."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    hosts = set()
    for name in (host, other_host):
        with contextlib.suppress(OSError):
            name = socket.gethostbyname(name.strip("[]"))
        hosts.add(name)
    return port == other_port and (len(hosts) == 1 or any(name.startswith("127.") for name in hosts))


def _found() -> str:
    """Return the address of the cluster that runs on this machine, as `ray start` and `ray.init` write it down."""
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    where = os.environ.get("RAY_ADDRESS") or (file.read_text().strip() if file.is_file() else "")
    if not where:
        raise ConfigurationError(
            "RayEngine: address='auto', and no cluster runs on this machine; start one with `ray start --head`, or "
            "leave the address out"
        )
    return where


def _probe(address: str) -> None:
    """Raise unless a gRPC server answers there: Ray itself waits for minutes, or for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(
            f"RayEngine: address={address!r} is not an address; give host:port of the cluster's head, such as "
            "10.0.0.5:6379, or leave it out to run on this machine"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as sock:
            if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
                return  # which only Ray speaks here
            sock.settimeout(_SECONDS)
            sock.sendall(_PREFACE)
            answer = sock.recv(9)
    except OSError as error:
        raise ConfigurationError(
            f"RayEngine: address={address!r}: nothing answers there ({error.strerror or error or 'timed out'}); start "
            "the cluster with `ray start --head`, or check the host and the port"
        ) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise ConfigurationError(
            f"RayEngine: address={address!r}: what answers there is no Ray cluster; give the head's port, usually 6379"
        )


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all machines."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]), "tts-plugins": __version__, "code": _fingerprint()}


@functools.cache
def _fingerprint() -> str:
    """Return what changes with the code of this package: between two releases, the version says nothing."""
    root, found = Path(__file__).parents[1], hashlib.blake2b(digest_size=4)
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()


def check_versions(theirs: dict[str, str], node: str) -> None:
    """Raise unless a worker has the versions that this process has.

    Raises:
        ConfigurationError: names each that differs.
    """
    mine = versions()
    if wrong := [name for name in mine if theirs.get(name) != mine[name]]:
        names = {"code": f"another build of tts-plugins {__version__}, with code"}
        said = " and ".join(f"{names.get(name, name)} {theirs.get(name)} (here {mine[name]})" for name in wrong)
        raise ConfigurationError(f"RayEngine: the workers on node {node} have {said}; install the same there")
