"""One process of a sandbox, seen from outside: start it, send it one check at a time, end it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from tts_plugins.verifiers._sandbox.launch import Kind, command, first_line

_START, _SLACK, _LEAVE = 30.0, 10.0, 2.0  # seconds to start, past a check's own limit, and to end by itself
_MOST = 8 << 20  # bytes of a reply
# It gets nothing of this process's environment; hashes are the same in each process.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}


class Broken(Exception):
    """The process could not be started, or did not answer. This says nothing about a candidate."""


class Cancelled(Exception):
    """The check was stopped because nobody waits for it."""


class SandboxProcess:
    """A warm process that forks once for every check. One thread uses it; any may call `cancel`."""

    def __init__(self, kind: Kind, *, memory: int) -> None:
        self.kind, self.memory, self.landlock = kind, memory, 0
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None
        self._pending = b""
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)

    @property
    def pid(self) -> int | None:
        """The id of the process; None if it is not running."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one check and return its outcome. Start the process if it is not running.

        Raises:
            Broken: there is no answer. The next call starts a new process.
            Cancelled: `cancel` was called meanwhile.
        """
        number = next(self._numbers)
        try:
            process = self._started()
            self._send(process, {"id": number, **request})
            reply = self._reply(process, time.monotonic() + float(request["timeout"]) + _SLACK, number)
        except BaseException:
            self.end()
            raise
        if reply.get("cancelled"):
            raise Cancelled
        if "refused" in reply:
            raise Broken(f"the sandbox could not set a restriction: {reply['refused']}")
        return reply

    def cancel(self) -> None:
        """Stop the check that runs, without waiting for its end."""
        with contextlib.suppress(OSError):
            os.write(self._wake[1], b"x")

    def forget(self) -> None:
        """Take back a `cancel` that nothing has read."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 1 << 10)

    def end(self) -> None:
        """End it and what it forked, and remove its folder. The next check starts it again."""
        process, self._process, self._pending = self._process, None, b""
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_LEAVE)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # bubblewrap's own and all within are of this group
                process.wait()
            process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def close(self) -> None:
        """End it for good."""
        self.end()
        for place in self._wake:
            os.close(place)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        base = "/tmp"  # a file system of its own
        if self.kind != "bubblewrap":
            base = self._folder = os.path.realpath(tempfile.mkdtemp(prefix="tts-plugins-checks-"))
        # It gets a session of its own, so that Ctrl-C in a terminal does not end it in the middle of a check.
        self._process = subprocess.Popen(
            command(self.kind), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._send(self._process, first_line(self.kind, base, self.memory))
        ready = self._reply(self._process, time.monotonic() + _START, None)
        if "ready" not in ready:
            raise Broken(f"the sandbox process cannot work: {ready.get('error')}")
        self.landlock = int(ready["landlock"])
        return self._process

    def _send(self, process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise Broken(f"the {self.kind} process does not start or has ended ({self._code(process)})") from error

    def _reply(self, process: subprocess.Popen[bytes], end: float, number: int | None) -> dict[str, Any]:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if number is not None:  # while it starts there is nothing to cancel
                selector.register(self._wake[0], selectors.EVENT_READ)
            while b"\n" not in self._pending:
                ready = {key.fd for key, _ in selector.select(max(0.0, end - time.monotonic()))}
                if not ready:
                    raise Broken(f"the {self.kind} process did not answer in time")
                if self._wake[0] in ready:
                    self.forget()
                    self._send(process, {"cancel": number})
                if process.stdout.fileno() in ready:
                    chunk = os.read(process.stdout.fileno(), 1 << 16)
                    self._pending += chunk
                    if not chunk or len(self._pending) > _MOST:
                        raise Broken(f"the {self.kind} process ended ({self._code(process)})")
        line, _, self._pending = self._pending.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    @staticmethod
    def _code(process: subprocess.Popen[bytes]) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        return f"exit {process.returncode}"
