"""Checks in processes that can be killed: some patterns and comparisons take for ever, and math-verify sets alarms."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tts_plugins._concurrency import forks
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import MissingExtraError

_START = 60.0  # seconds for a worker to import math-verify and sympy, on a busy machine


class WorkerProcesses:
    """A few processes, started when they are needed; they end with the program.

    Args:
        module: what runs in them: it writes a line when it is ready, and then a line for each that it reads.
        timeout: seconds for one comparison; a process that takes longer is ended, and another is started.
        workers: how many there may be.
    """

    def __init__(self, module: str, *, timeout: float, workers: int) -> None:
        self._module, self.timeout, self._workers = module, timeout, workers
        self.renew()
        forks.renew(self)

    def renew(self) -> None:
        """Begin without a worker, as a forked child must: the parent's own answers to the parent alone."""
        self._idle: list[_Worker] = [_Worker(self._module) for _ in range(self._workers)]
        self._free = threading.Semaphore(self._workers)
        self._lock = threading.Lock()

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker replies; `error` in it says why it could not."""
        return await in_thread(self.ask_here, request)

    def ask_here(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The same, in the calling thread."""
        with self._free:
            with self._lock:
                worker = self._idle.pop()
            try:
                return worker.ask(request, self.timeout)
            finally:
                with self._lock:
                    self._idle.append(worker)

    def close(self) -> None:
        """End the workers; a later call starts them again."""
        with self._lock:
            for worker in self._idle:
                worker.end()


class _Worker:
    """One process, asked one thing at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        try:
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            process.stdin.flush()
            return self._line(process, timeout, f"no answer within timeout={timeout:g} s")
        except (OSError, ValueError) as error:
            self.end()
            return {"error": f"the worker broke ({type(error).__name__}: {error})"}
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            command = [sys.executable, "-m", self._module]
            # A worker ends with its stdin, and so with this program, however that ends.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},  # the same packages
            )  # fmt: skip
            ready = self._line(self._process, _START, "the worker could not be started in time")
            if "ready" not in ready:
                raise OSError(str(ready.get("error")))
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout: float, late: str) -> dict[str, Any]:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            end = time.monotonic() + timeout
            if not selector.select(max(0.0, end - time.monotonic())):
                self.end()
                return {"error": late}
        line = process.stdout.readline()  # a whole line: it is written in one piece
        if not line:
            self.end()
            return {"error": "the worker ended"}
        reply: dict[str, Any] = json.loads(line)
        return reply


class MathProcesses(WorkerProcesses):
    """Processes that run math-verify.

    Args:
        who: what uses them, for errors.
        timeout, workers: as for `WorkerProcesses`.

    Raises:
        MissingExtraError: math-verify is not installed.
    """

    def __init__(self, who: str, *, timeout: float, workers: int) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError(f"{who} needs math-verify: pip install 'tts-plugins[math]'")
        super().__init__("tts_plugins.verifiers._math_worker", timeout=timeout, workers=workers)


def answer_lines(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Do a worker's part: say that it is ready, then answer each line of stdin by a line, until stdin ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may pass for an answer
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - it meets whatever a model wrote
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        out.write(json.dumps(reply) + "\n")
        out.flush()
