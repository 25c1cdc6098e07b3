"""Whether a mathematical answer equals the known one, by math-verify in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tts_plugins._concurrency import forks
from tts_plugins._internal.config import check_count
from tts_plugins._internal.threads import in_thread
from tts_plugins.answers import extract, normalise
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, MissingExtraError, VerifierError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score

_START = 60.0  # seconds for a worker to import math-verify and sympy, on a busy machine


class MathAnswer:
    r"""Scores 1 where the candidate's answer equals the known one, else 0. For benchmarks, and for training verifiers.

    Args:
        gold: the known answer, or a function from the problem to it; `problem.metadata["answer"]` where left out.
        timeout: seconds for one comparison. Some take for ever; the worker is then ended and another is started.
        workers: processes, started when they are needed.

    Answers that are equal in normal form (`tts_plugins.answers.normalise`) need no worker. A candidate without a
    readable answer scores 0 and says so. `close()` ends the workers; they end with the program, too.

    Raises:
        ConfigurationError: a field is out of range; at the call, the problem has no known answer.
        MissingExtraError: math-verify is not installed.
    """

    name = "MathAnswer"

    def __init__(
        self, gold: str | Callable[[Problem], str] | None = None, *, timeout: float = 10.0, workers: int = 1
    ) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError("MathAnswer needs math-verify: pip install 'tts-plugins[math]'")
        if not timeout > 0:
            raise ConfigurationError(f"MathAnswer: timeout={timeout!r} must be above 0 seconds")
        check_count("MathAnswer", "workers", workers)
        self.timeout = timeout
        self._gold = gold
        self._workers = workers
        self.renew()
        forks.renew(self)

    def renew(self) -> None:
        """Begin without a worker, as a forked child must: the parent's own answers to the parent alone."""
        self._idle: list[_Worker] = [_Worker() for _ in range(self._workers)]
        self._free = threading.Semaphore(self._workers)
        self._lock = threading.Lock()

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free: it runs here."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0.

        Raises:
            VerifierError: the comparison took too long, or the worker failed.
        """
        gold = self.gold(candidate.problem)
        answer = candidate.answer if candidate.answer is not None else extract(candidate.text)
        if answer is None:
            return Score(value=0.0, feedback="no answer could be read")
        if normalise(answer) == normalise(gold):
            return Score(value=1.0)
        # The text as it stands: what normal form took away (case, signs) may matter to a parser.
        reply = await in_thread(self._ask, {"gold": gold, "answer": answer})
        if "error" in reply:
            raise VerifierError(f"MathAnswer: {answer[:80]!r} against {gold[:80]!r}: {reply['error']}")
        if not reply["gold"]:
            return Score(value=0.0, feedback="it differs from the known answer, which is no formula")
        return Score(value=float(reply["equal"]), feedback="" if reply["equal"] else "it differs from the known answer")

    def gold(self, problem: Problem) -> str:
        """The known answer.

        Raises:
            ConfigurationError: there is none.
        """
        gold = self._gold(problem) if callable(self._gold) else self._gold
        gold = problem.metadata.get("answer") if gold is None else gold
        if gold is None or not str(gold).strip():
            raise ConfigurationError(
                "MathAnswer: the problem has no known answer; pass gold=…, or Problem(…, metadata={'answer': …})"
            )
        return str(gold)

    def close(self) -> None:
        """End the workers; a later call starts them again."""
        with self._lock:
            for worker in self._idle:
                worker.end()

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        with self._free:
            with self._lock:
                worker = self._idle.pop()
            try:
                return worker.ask(request, self.timeout)
            finally:
                with self._lock:
                    self._idle.append(worker)


class _Worker:
    """One process, asked one thing at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, str], timeout: float) -> dict[str, Any]:
        try:
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
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
            command = [sys.executable, "-m", "tts_plugins.verifiers._math_worker"]
            # A worker ends with its stdin, and so with this program, however that ends.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
            )
            ready = self._line(self._process, _START, "math-verify could not be loaded in time")
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


def _environment() -> dict[str, str]:
    """This process's environment, with its path of modules, so that the worker finds the same packages."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
