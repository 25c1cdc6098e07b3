"""Programs scored by running them: against given tests, the examples of a docstring, or tests that a model wrote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, get_args, overload

from tts_plugins._internal.config import check_count, check_flag, check_seconds
from tts_plugins._internal.threads import call_user
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, SandboxUnavailable, VerifierError
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._free import FreeVerifier
from tts_plugins.verifiers._model_calls import Asker
from tts_plugins.verifiers._sandbox.launch import KINDS, MEBI, Kind
from tts_plugins.verifiers._sandbox.probe import Sandbox, find_sandbox, probe
from tts_plugins.verifiers._sandbox.worker_pool import Pool
from tts_plugins.verifiers._sandbox.worker_process import Broken, Cancelled
from tts_plugins.verifiers.code._dual_agreement import dual_agreement, known_first
from tts_plugins.verifiers.code._messages import check_tests, first_failure, parses, writing_messages
from tts_plugins.verifiers.code._program_text import asserts_of, examples_of, program_of
from tts_plugins.verifiers.code._stdin import as_tests, check_io, harness

Tests = Sequence[str] | Callable[[Problem], Sequence[str]]
InputsOutputs = Sequence[tuple[str, str]] | Callable[[Problem], Sequence[tuple[str, str]]]
Choice = Literal["auto", "bubblewrap", "landlock", "none"]

_LEAST_MEMORY = 64  # MiB: below that Python itself does not run


class CodeTests:
    """Scores a candidate's program by the share of tests that it passes; the feedback is its first failure in words.

    Args:
        tests: asserts (or other statements that raise where something is wrong), or a function from the problem.
        examples: "docstring" for the examples that the problem's text holds: doctests, asserts, `f(x) == y`.
        io: pairs of an input and the output that a program writes for it, or a function from the problem to them, as
            in APPS and LiveCodeBench. The program runs as a script once for each. Blanks at the ends of lines do not
            count, nor how a number is written.
        generated: tests that a model wrote, some of them wrong: a list, a function from the problem, or a `Model`,
            which is asked for them. Then all candidates are scored together by dual agreement: those that pass the
            same tests vote together, and a score is the share of candidates in that group x the share of tests
            passed (CodeT, 2207.10397). With `tests` or `examples`, too, those that pass more of these come first.
        timeout: seconds for all tests of one candidate.
        test_timeout: seconds for one test, and for loading the program; what takes longer fails, the others go on.
        memory: MiB that a program may take.
        workers: warm processes that check side by side.
        most: the largest number of generated tests that are run.
        draws: how many replies with tests a `Model` is asked for; those in most replies come first.
        program: the program of a candidate, where fenced blocks and completions of the problem are not what it is.
        sandbox: "auto", or the only kind to use: "bubblewrap", "landlock", or "none" (with `unsafe`).
        unsafe: where no sandbox works, run programs all the same, with your own rights. Where one does, it is used.

    A program gets one process with one thread, no network, no environment, nothing to read but Python's library and
    the system's, nothing to write but an own empty folder. `tests` and a program share a process: an exit or a loop
    costs the test in which it stands, an object that says itself that it is equal to a literal fails, but a program
    that is written to deceive its tests may do so. `close()` ends the workers; they end with the program, too.

    Raises:
        ConfigurationError: a field is out of range, or there is nothing to test with.
        SandboxUnavailable: no sandbox works here, and `unsafe` is not set. Found out once a process, by trying.
    """

    name: ClassVar[str] = "CodeTests"

    @overload
    def __new__(
        cls, tests: Tests | None = None, *, examples: Literal["docstring"] | None = None,
        io: InputsOutputs | None = None, generated: None = None,
        timeout: float = 10.0, test_timeout: float = 2.0, memory: int = 256, workers: int = 2, most: int = 100,
        draws: int = 1, program: Callable[[Problem, Candidate], str] | None = None, sandbox: Choice = "auto",
        unsafe: bool = False,
    ) -> SingleCodeTests: ...  # fmt: skip

    @overload
    def __new__(
        cls, tests: Tests | None = None, *, examples: Literal["docstring"] | None = None, generated: Tests | Model,
        timeout: float = 10.0, test_timeout: float = 2.0, memory: int = 256, workers: int = 2, most: int = 100,
        draws: int = 1, program: Callable[[Problem, Candidate], str] | None = None, sandbox: Choice = "auto",
        unsafe: bool = False,
    ) -> DualAgreement: ...  # fmt: skip

    def __new__(
        cls, tests: Tests | None = None, *, examples: Literal["docstring"] | None = None,
        io: InputsOutputs | None = None, generated: Tests | Model | None = None,
        timeout: float = 10.0, test_timeout: float = 2.0, memory: int = 256,
        workers: int = 2, most: int = 100, draws: int = 1,
        program: Callable[[Problem, Candidate], str] | None = None, sandbox: Choice = "auto", unsafe: bool = False,
    ) -> CodeTests:  # fmt: skip
        if tests is None and examples is None and generated is None and io is None:
            raise ConfigurationError(
                "CodeTests: nothing to test with; give tests=[…], io=[…], examples='docstring' or generated=…"
            )
        if io is not None and generated is not None:
            raise ConfigurationError("CodeTests: io and generated do not go together yet; leave out one of them")
        check_io(io)
        if examples not in (None, "docstring"):
            raise ConfigurationError(f"CodeTests: examples={examples!r} is not known; use 'docstring', or tests=[…]")
        check_tests("tests", tests)
        check_seconds("CodeTests", "timeout", timeout)
        check_seconds("CodeTests", "test_timeout", test_timeout)
        check_count("CodeTests", "memory", memory, least=_LEAST_MEMORY)
        for name, value in (("workers", workers), ("most", most), ("draws", draws)):
            check_count("CodeTests", name, value)
        self = object.__new__(SingleCodeTests if generated is None else DualAgreement)
        self._sandbox = _found(sandbox, unsafe)
        self._io = io
        self._tests, self._docstring, self._program = tests, examples == "docstring", program
        self._times = {"timeout": float(timeout), "test_timeout": float(min(test_timeout, timeout))}
        self._pool = Pool(self._sandbox.kind, memory=memory * MEBI, workers=workers)
        if isinstance(self, DualAgreement):
            self._prepare(generated, most, draws)
        return self

    _sandbox: Sandbox
    _tests: Tests | None
    _io: InputsOutputs | None
    _docstring: bool
    _program: Callable[[Problem, Candidate], str] | None
    _times: Mapping[str, float]
    _pool: Pool

    def __repr__(self) -> str:
        return f"CodeTests({self._sandbox.kind})"

    @property
    def sandbox(self) -> Sandbox:
        """What programs run in: its kind, and why better ones do not work here."""
        return self._sandbox

    def close(self) -> None:
        """End the workers and what they run; a later check starts new ones."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def known_tests(self, problem: Problem) -> list[str]:
        """The tests that are taken to be right: the given ones, then the examples of the problem's text."""
        given = await call_user(self._tests, problem) if callable(self._tests) else self._tests or ()
        check_tests("tests", given)
        return list(dict.fromkeys([*given, *(examples_of(problem.text) if self._docstring else ())]))

    async def program(self, candidate: Candidate) -> str:
        """The program that a candidate wrote; empty where there is none.

        Raises:
            VerifierError: the function that was given as `program` returned no text.
        """
        if self._program is None:
            return program_of(candidate.text, candidate.problem.text)
        program: object = await call_user(self._program, candidate.problem, candidate)
        if not isinstance(program, str):
            raise VerifierError(f"CodeTests: program=… returned {program!r:.80} for a candidate; return its source")
        return program

    async def check(self, program: str, tests: Sequence[str]) -> list[str | None]:
        """For each test None where it passed, else why it did not; what is cancelled is killed.

        Raises:
            VerifierError: the sandbox failed.
        """
        if not program.strip():
            return ["there is no code"] * len(tests)
        request = {"program": program, "tests": list(tests), **self._times}
        try:
            try:
                reply = await self._pool.check(request)
            except Broken:  # a process may have been ended from outside; a new one is started
                reply = await self._pool.check(request)
        except Broken as error:
            raise VerifierError(f"CodeTests: the sandbox ({self._sandbox.kind}) failed: {error}") from error
        except Cancelled as error:
            raise VerifierError("CodeTests: it was closed while this candidate was checked") from error
        outcomes: list[str | None] = reply["outcomes"]
        return outcomes

    def _details(self, outcomes: Sequence[str | None]) -> dict[str, Any]:
        return {"passed": outcomes.count(None), "tests": len(outcomes), "sandbox": self._sandbox.kind}


class SingleCodeTests(CodeTests, FreeVerifier):
    """`CodeTests` without generated tests: each candidate is scored as it arrives. Made by `CodeTests(…)`."""

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The share of tests passed.

        Raises:
            VerifierError: there are no tests for this problem, or the sandbox failed.
        """
        tests, io = await self.known_tests(candidate.problem), await self._pairs(candidate.problem)
        if not tests and not io:
            raise VerifierError("CodeTests: the problem has no tests or examples that can be read; give tests=[…]")
        program = await self.program(candidate)
        outcomes = await self.check(program, tests) if tests else []
        if io:
            outcomes += await self.check(harness(program) if program.strip() else "", io)
        tests = [*tests, *io]
        return Score(
            value=outcomes.count(None) / len(tests), feedback=first_failure(tests, outcomes),
            details=self._details(outcomes),
        )  # fmt: skip

    async def _pairs(self, problem: Problem) -> list[str]:
        io = await call_user(self._io, problem) if callable(self._io) else self._io
        check_io(io)
        return as_tests(io or ())


class DualAgreement(CodeTests):
    """`CodeTests` with generated tests: candidates are scored together. Made by `CodeTests(generated=…)`."""

    _generated: Tests | None
    _asker: Asker | None

    def _prepare(self, generated: Tests | Model | None, most: int, draws: int) -> None:
        self._most, self._draws = most, draws
        self._asker = Asker(generated, "CodeTests") if isinstance(generated, Model) else None
        self._generated = None if isinstance(generated, Model) else generated
        check_tests("generated", self._generated, parse=False)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free where the tests are given; with a model, one request for tests for each candidate: only that for the
        first of them is made, the others are given back."""
        if self._asker is None:
            return FREE
        return await self._asker.bound([writing_messages(problem)], times=self._draws)

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        """One score for each candidate, in order; a program that several wrote is run once.

        Raises:
            VerifierError: there are no tests, or the sandbox failed.
        """
        problem = candidates[0].problem
        known, written = await self.known_tests(problem), await self._written(run, problem)
        if not known and not written:
            raise VerifierError("CodeTests: no generated test could be read, and there are no examples; give tests=[…]")
        tests = [*known, *written]
        programs = [await self.program(c) for c in candidates]
        distinct = list(dict.fromkeys(programs))
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._checked(p, known, written)) for p in distinct]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        found = {program: task.result() for program, task in zip(distinct, running, strict=True)}
        rows = [found[p] for p in programs]
        agreement = dual_agreement([[why is None for why in row[len(known) :]] for row in rows])
        values = known_first([[why is None for why in row[: len(known)]] for row in rows], agreement)
        alike = [sum(_passes(other) == _passes(row) for other in rows) for row in rows]
        return [
            Score(value=value, feedback=first_failure(tests, row), details={**self._details(row), "alike": same})
            for value, row, same in zip(values, rows, alike, strict=True)
        ]

    async def _checked(self, program: str, known: Sequence[str], written: Sequence[str]) -> list[str | None]:
        # In two goes: what generated tests take of the time must not fail an example.
        return [*(await self.check(program, known) if known else ()),
                *(await self.check(program, written) if written else ())]  # fmt: skip

    async def _written(self, run: Run, problem: Problem) -> list[str]:
        if self._asker is not None:
            replies = await self._asker.ask(run, writing_messages(problem), self._draws)
            return asserts_of([reply.text for reply in replies], self._most)
        given = await call_user(self._generated, problem) if callable(self._generated) else self._generated or ()
        check_tests("generated", given, parse=False)
        return [test for test in dict.fromkeys(given) if parses(test)][: self._most]


def _found(sandbox: Choice, unsafe: bool) -> Sandbox:
    check_flag("CodeTests", "unsafe", unsafe)
    if sandbox not in get_args(Choice):
        known = ", ".join(map(repr, get_args(Choice)))
        raise ConfigurationError(f"CodeTests: sandbox={sandbox!r} is not known; use one of {known}")
    if sandbox == "none" and not unsafe:
        raise ConfigurationError("CodeTests: sandbox='none' runs programs with your own rights; write unsafe=True, too")
    if not hasattr(os, "fork"):
        raise SandboxUnavailable("CodeTests: this system cannot fork; use Linux, or WSL on Windows")
    kinds: Sequence[Kind] = KINDS if sandbox == "auto" else (sandbox,)
    try:
        return find_sandbox(kinds)
    except SandboxUnavailable:
        if not unsafe:
            raise
        return Sandbox(kind="none", lacking={kind: str(probe(kind)) for kind in kinds})


def _passes(row: Sequence[str | None]) -> tuple[bool, ...]:
    return tuple(why is None for why in row)
