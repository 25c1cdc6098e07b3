"""llama.cpp as an OpenAI-compatible server on a loopback port, for a GGUF file.

xllamacpp's server runs in a child process, not in ours, for reasons seen in practice (xllamacpp 2026.10): loading holds
the GIL; destroying a server with a request in flight hangs for ever, holding the GIL; it takes over SIGINT and SIGTERM;
a damaged file may abort the process; its log goes to the terminal; and its thread pool is kept from spinning only by
an environment variable, before it is loaded. A child can be killed, which frees every byte at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
import weakref
from pathlib import Path
from typing import IO, Literal, Self

from tts_plugins._internal.files import expanded
from tts_plugins.errors import ConfigurationError, MissingExtraError, WeightsError
from tts_plugins.models._llama_cpp.cpu_cores import default_threads

_ERRORS, _EVERYTHING = 1, 3  # llama.cpp's levels of verbosity
_VERSIONS = range(2, 4)  # of the GGUF format
Pooling = Literal["mean", "last"]
_NEW_PROCESS_GROUP = 0x200  # subprocess.CREATE_NEW_PROCESS_GROUP, which only Windows defines


class LlamaServer:
    """A running llama.cpp server over one GGUF file; a context manager.

    `context` is in tokens per slot, `slots` the requests served at once (more are queued), `threads` the CPU threads
    (None: the free cores among those we may use). A slot of 4096 tokens takes 94 MB with the embedded model.
    With `embeddings` the server gives those of texts: the "mean" of their tokens' hidden states, or the "last" one;
    it then generates nothing. `log` names a file for llama.cpp's own log.
    `ready_seconds` limits the start.

    Raises MissingExtraError without xllamacpp, ConfigurationError for a wrong setting, and WeightsError, in one line
    that names the file, if it cannot be loaded or is not ready in time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int = 4096,
        slots: int = 8,
        threads: int | None = None,
        embeddings: Pooling | None = None,
        log: Path | None = None,
        ready_seconds: float = 300.0,
    ) -> None:
        for field, value in (("context", context), ("slots", slots), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigurationError(f"{field}={value!r}: must be at least 1")
        if embeddings not in (None, "mean", "last"):
            raise ConfigurationError(f"embeddings={embeddings!r} is not known; use 'mean', 'last' or None")
        self.path = _gguf(expanded(path))
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError("The local model needs xllamacpp: pip install 'tts-plugins[local]'")
        self.context, self.slots = context, slots
        self.threads = threads or default_threads()
        settings = {
            "path": str(self.path.resolve()), "context": context, "slots": slots, "threads": self.threads,
            "embeddings": embeddings, "verbosity": _EVERYTHING if log else _ERRORS,
        }  # fmt: skip
        with log.open("w+b") if log else tempfile.TemporaryFile() as errors:
            process = _spawn(errors)
            # At exit and on collection too; in a fork it must not touch the parent's child.
            self._close = weakref.finalize(self, _stop, process, os.getpid())
            try:
                self._address = _started(process, settings, errors, self.path, ready_seconds)
            except BaseException:
                self.close()
                raise
        self._process = process

    @property
    def base_url(self) -> str:
        """The URL for an OpenAI client, with /v1."""
        return f"{self._address}/v1"

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the server at once, requests in flight included, and free its memory. Calling it again does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gguf(path: Path) -> Path:
    """Return `path` if it looks like a GGUF file. llama.cpp checks the contents."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise WeightsError(f"The model file {path} cannot be read: {error.strerror or error}") from error
    if head[:4] != b"GGUF":
        raise WeightsError(f"The model file {path} is not a GGUF file. llama.cpp reads GGUF; convert the model to it")
    if len(head) < 24:
        raise WeightsError(f"The model file {path} is truncated: {len(head)} bytes. Download it again")
    if (version := int.from_bytes(head[4:8], "little")) not in _VERSIONS:
        raise WeightsError(f"The model file {path} has GGUF version {version}; versions 2 and 3 can be read")
    return path


def _spawn(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise ConfigurationError("The local model needs a Python executable: sys.executable is empty")
    surroundings = {
        # libgomp's threads spin at every barrier of every token: 2 threads on 2 cores beside a process that was busy
        # half the time did not end in 25 s (64 tokens); waiting passively they gave 36 to 57 tokens/s.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    # A session (or group) of its own: Ctrl-C in the terminal is for the parent, which decides when the server ends.
    windows = sys.platform == "win32"
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("server_process.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=surroundings,
        start_new_session=not windows, creationflags=_NEW_PROCESS_GROUP if windows else 0,
    )  # fmt: skip


def _started(
    process: subprocess.Popen[bytes], settings: dict[str, object], errors: IO[bytes], path: Path, limit: float
) -> str:
    """Return the address of the server in `process` once it answers. On timeout, kill the child to end the read."""
    assert process.stdin is not None and process.stdout is not None
    expired = threading.Event()

    def give_up() -> None:
        expired.set()
        process.kill()

    late = threading.Timer(limit, give_up)
    late.daemon = True
    late.start()
    try:
        with contextlib.suppress(BrokenPipeError):  # it died at once: the missing answer shows it
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        said: dict[str, str] = json.loads(line) if line else {}
        if "address" in said:
            _greet(said["address"], path, limit)
            return said["address"]
        code = process.wait()
    finally:
        late.cancel()
    if expired.is_set():
        raise WeightsError(f"llama.cpp did not load {path} in {limit:g} s. Raise ready_seconds or take a smaller model")
    errors.seek(0)
    log = errors.read().decode(errors="replace")
    raise WeightsError(f"llama.cpp cannot load {path}: {_cause(log, said, code)}")


def _greet(address: str, path: Path, limit: float) -> None:
    """Ask for the server's health, past any proxy that the environment names."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/health", timeout=limit):
            return
    except OSError as error:
        raise WeightsError(f"llama.cpp loaded {path} but does not answer on {address}: {error}") from error


def _cause(log: str, said: dict[str, str], code: int) -> str:
    """Return the first error in llama.cpp's log, else what the child said, else how it ended."""
    match = re.search(r"error loading model: ([^\n]+)", log) or re.search(r"^[\d.]+ E ([^\n]+)", log, re.MULTILINE)
    if match:
        return match[1].strip()[:200]
    return said.get("error") or f"it ended with code {code}" + (" (killed: out of memory?)" if code == -9 else "")


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()  # there is no state to save, and a graceful end waits for the requests in flight
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
