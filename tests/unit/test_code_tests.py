"""CodeTests: programs and examples in texts, scores, feedback, dual agreement, settings, the engine around it."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Problem, solve, solve_sync
from tts_plugins.budget import FREE
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, VerifierError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.contracts import VerifierContract
from tts_plugins.types import Candidate, Result
from tts_plugins.verifiers import CodeTests, sandbox_kind
from tts_plugins.verifiers._sandbox.worker_process import Broken
from tts_plugins.verifiers.code._blocks import fenced
from tts_plugins.verifiers.code._dual_agreement import dual_agreement, known_first
from tts_plugins.verifiers.code._program_text import asserts_of, examples_of, open_function, program_of

needs_sandbox = pytest.mark.skipif(sandbox_kind() is None, reason="no sandbox works on this machine")
RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
STUB = 'import math\n\n\ndef area(r: float) -> float:\n    """The area.\n\n    >>> area(1) > 3\n    True\n    """\n'


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[CodeTests] = []

    def make(*tests: str, **settings: Any) -> Any:
        made.append(CodeTests(list(tests) or None, **{"timeout": 4.0, "test_timeout": 1.0, **settings}))
        return made[-1]

    yield make
    for verifier in made:
        verifier.close()


async def scored(verifier: Any, *texts: str, problem: Any = "Write add.", **settings: Any) -> Result:
    return await solve(problem, model=ScriptedModel(list(texts)), strategy=BestOfN(n=len(texts)), verifier=verifier,
                       seed=1, **settings)  # fmt: skip


# Programs


def test_fenced_blocks_are_the_program_and_other_languages_are_not() -> None:
    text = f"Here:\n```python\n{RIGHT}```\nRun it:\n```sh\npip install x\n```\nand\n~~~\nx = 1\n~~~\n"
    assert fenced(text) == RIGHT + "\n\nx = 1\n"


def test_an_unclosed_fence_is_read_to_the_end_and_a_text_without_any_is_code() -> None:
    assert fenced("```py\nx = 1\ny = 2") == "x = 1\ny = 2"
    assert fenced(RIGHT) == RIGHT
    assert fenced("```json\n{}\n```") == ""


def test_a_completion_continues_the_problem() -> None:
    assert open_function(STUB) == "area"
    names: dict[str, Any] = {}
    exec(program_of("    return math.pi * r * r\n", STUB), names)
    assert names["area"](1) > 3.14


def test_a_function_written_anew_keeps_the_imports_above() -> None:
    names: dict[str, Any] = {}
    exec(program_of("```python\ndef area(r):\n    return math.pi * r * r\n```", STUB), names)
    assert names["area"](1) > 3.14


@pytest.mark.parametrize("problem", ["Write a function.", RIGHT, "x = 1", "def broken(:\n", ""])
def test_other_problems_leave_nothing_open(problem: str) -> None:
    assert open_function(problem) is None


def test_no_code_is_no_program() -> None:
    assert program_of("  \n", STUB) == ""


# Examples


@pytest.mark.parametrize(("text", "tests"), [
    (">>> add(1, 2)\n3\n", ["assert add(1, 2) == 3"]),
    (">>> add('a',\n...     'b')\n'ab'\n", ["assert add('a', 'b') == 'ab'"]),
    (">>> f(1) < 2\nTrue", ["assert (f(1) < 2) == True"]),
    ('def f():\n    """\n    >>> f()\n    [1, 2]\n    """\n', ["assert f() == [1, 2]"]),
    (">>> x = 1\n>>> print(x)\n1", ["assert print(x) == 1"]),
    (">>> f()\nTraceback (most recent call last):\nValueError", []),
    (">>> f()\n<A object>", ["assert repr(f()) == '<A object>'"]),
    ("assert f(1) == 2, 'why'", ["assert f(1) == 2, 'why'"]),
    ("- `f(1) == 2`", ["assert f(1) == 2"]),
    ("f((1, 2), g(3)) ➞ [4, 5]  # a remark", ["assert f((1, 2), g(3)) == [4, 5]"]),
    ("For example f('a)') -> 'b', and", ["assert f('a)') == 'b'"]),
    ("f(2) returns True.", ["assert f(2) == True"]),
    ("f(1) = 3", ["assert f(1) == 3"]),
    ("f(1) >= 3 or f(x)", []),
    ("def f(a: int) -> int:", []),
    ("f(1) == 2\nf(1) == 2", ["assert f(1) == 2"]),
])  # fmt: skip
def test_examples_in_texts(text: str, tests: list[str]) -> None:
    assert examples_of(text) == tests


def test_examples_are_of_the_function_that_is_asked_for() -> None:
    text = 'def f(x):\n    """Like max(1, 2) == 2.\n    f(1) == 2\n    """\n'
    assert examples_of(text) == ["assert f(1) == 2"]


def test_asserts_of_replies_the_most_frequent_first() -> None:
    replies = ["```python\nassert f(1) == 1\nassert f(2)==2\n```", "assert f(2) == 2\nno python at all here\n",
               "def test_it():\n    assert f(3) == 3\n    assert f(2) == 2\n"]  # fmt: skip
    assert asserts_of(replies, 2) == ["assert f(2) == 2", "assert f(1) == 1"]


# Agreement


def test_dual_agreement_is_the_size_of_the_group_times_the_tests_it_passes() -> None:
    rows = [[True, True, False], [True, True, False], [True, False, False], [False, False, False]]
    assert dual_agreement(rows) == pytest.approx([1 / 3, 1 / 3, 1 / 12, 0])
    assert dual_agreement([[]]) == [0.0]


def test_known_tests_come_first() -> None:
    values = known_first([[True], [False], [True]], [0.0, 1.0, 0.2])
    assert values[2] > values[0] > values[1]
    assert all(0 <= v <= 1 for v in values)
    assert known_first([[], []], [1.0, 0.3]) == [1.0, 0.3]


# Scores


@needs_sandbox
async def test_a_score_is_the_share_of_tests_passed_and_the_feedback_the_first_failure(opened: Any) -> None:
    verifier = opened("assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(2, 2) == 4")
    result = await scored(verifier, WRONG, RIGHT)
    assert result.text == RIGHT and result.score == 1.0 and result.best.feedback == ""
    wrong = result.candidates[0]
    assert wrong.score == pytest.approx(1 / 3)
    assert wrong.feedback == "2 of 3 tests failed; the first: assert add(1, 2) == 3 failed: it gave -1"
    assert wrong.details == {"passed": 1, "tests": 3, "sandbox": verifier.sandbox.kind}


@needs_sandbox
@pytest.mark.parametrize(("program", "says"), [
    ("def add(a, b) return", "does not load: SyntaxError"),
    ("1 / 0", "does not load: ZeroDivisionError: division by zero (line 1)"),
    ("def add(a, b):\n    return c", "NameError: name 'c' is not defined (line 2)"),
    ("def add(a, b):\n    while True: pass", "longer than 1 s"),
    ("import os\ndef add(a, b): os._exit(0)", "ended the process (exit 0)"),
    ("def add(a, b): exit()", "it ended the process (exit None)"),
    ("while True: pass", "does not load: it took longer than 1 s"),
    ("import os; os._exit(3)", "does not load: it ended the process (exit 3)"),
    ("def add(a, b): return bytearray(1 << 30)", "MemoryError"),
    ("def add(a, b): return add(a, b)", "RecursionError"),
    ("class A:\n    def __eq__(self, o): return True\ndef add(a, b): return A()", "it gave <candidate.A object"),
    ("class A:\n    def __repr__(self): raise ValueError\ndef add(a, b): return A()", "whose repr raises ValueError"),
    ("def add(a, b): return 'x' * 10_000", "it gave 'xxxx"),
    ("import ctypes\ndef add(a, b): ctypes.string_at(0)", "ended the process (SIGSEGV)"),
    ("   ", "there is no code"),
    ("x = '\ud800'", "does not load"),
])  # fmt: skip
async def test_failures_in_words(opened: Any, program: str, says: str) -> None:
    verifier = opened("assert add(1, 2) == 3", program=lambda problem, candidate: program)
    result = await scored(verifier, "any")
    assert result.score == 0.0
    assert says in result.best.feedback
    assert len(result.best.feedback) < 700


@needs_sandbox
async def test_a_test_that_ends_its_process_costs_itself_only(opened: Any) -> None:
    program = (
        "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 3:\n        while True: pass\n    return x\n"
    )
    outcomes = await opened("x").check(program, [f"assert f({i}) == {i}" for i in range(6)])
    assert [why is None for why in outcomes] == [True, False, True, False, True, True]


@needs_sandbox
async def test_the_time_for_all_tests_holds(opened: Any) -> None:
    verifier = opened("x", timeout=1.5, test_timeout=1.0)
    outcomes = await verifier.check("def f(x):\n    while x: pass\n", ["assert f(1)"] * 5)
    assert "longer than 1 s" in outcomes[0]
    assert outcomes[-1] == "not reached within timeout=1.5 s"


@needs_sandbox
async def test_usual_programs_run(opened: Any) -> None:
    program = (
        "import asyncio, collections, dataclasses, hashlib, itertools, json, re, tempfile, zoneinfo\n"
        "@dataclasses.dataclass\nclass P:\n    x: int\n"
        "async def later():\n    await asyncio.sleep(0)\n    return 5\n"
        "def five(): return asyncio.run(later())\n"
        "if __name__ == '__main__':\n    raise SystemExit\n"
    )
    tests = ["assert five() == 5", "assert P(1) == P(1)", "assert collections.Counter('aa') == {'a': 2}",
             "assert hashlib.sha256(b'').hexdigest()[:4] == 'e3b0'", "x = P(2)\nassert x.x == 2",
             "assert zoneinfo.ZoneInfo('UTC').key == 'UTC' if zoneinfo.available_timezones() else True",
             "with tempfile.TemporaryFile() as f:\n    f.write(b'x')",
             "with open('/dev/null', 'w') as f:\n    f.write('x')", "print('printed')"]  # fmt: skip
    assert await opened("x").check(program, tests) == [None] * len(tests)


@needs_sandbox
async def test_examples_of_the_docstring(opened: Any) -> None:
    verifier = opened(examples="docstring")
    result = await scored(verifier, "    return r\n", "    return math.pi * r * r\n", problem=STUB)
    assert [c.score for c in result.candidates] == [0.0, 1.0]


@needs_sandbox
async def test_tests_may_come_from_the_problem(opened: Any) -> None:
    verifier = CodeTests(lambda problem: problem.metadata["tests"])
    try:
        result = await scored(verifier, RIGHT, problem=Problem("?", metadata={"tests": ["assert add(1, 1) == 2"]}))
        assert result.score == 1.0
    finally:
        verifier.close()


@needs_sandbox
async def test_a_problem_without_tests_is_an_error_and_no_score(opened: Any) -> None:
    with pytest.raises(AllCandidatesFailed, match="no tests or examples that can be read"):
        await scored(opened(examples="docstring"), RIGHT)


@needs_sandbox
async def test_many_at_once_and_from_synchronous_code(opened: Any) -> None:
    verifier = opened("assert add(1, 2) == 3")
    result = await scored(verifier, *[RIGHT, WRONG] * 20)
    assert [c.score for c in result.candidates] == [1.0, 0.0] * 20
    once = solve_sync("?", model=ScriptedModel([RIGHT]), strategy=BestOfN(n=1), verifier=verifier)
    assert once.score == 1.0


@needs_sandbox
async def test_a_deadline_kills_what_runs(opened: Any) -> None:
    verifier = opened("assert add(1, 2) == 3", timeout=300.0, test_timeout=300.0)
    loop = "def add(a, b):\n    while True: pass\n"
    model = ScriptedModel([RIGHT, loop])
    await scored(verifier, RIGHT, RIGHT)  # its processes are there
    result = await asyncio.wait_for(
        solve("?", model=model, strategy=BestOfN(n=2), verifier=verifier, budget=Budget(seconds=2.5)), 60
    )
    assert result.stopped == "deadline" and result.text == RIGHT


# Generated tests


@needs_sandbox
async def test_candidates_that_pass_the_same_tests_vote_together(opened: Any) -> None:
    generated = ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(1, 1) == 3", "assert add(5, ___) =="]
    texts = [WRONG, RIGHT, "def add(a, b): return sum([a, b])", "def add(a, b): return 3"]
    result = await scored(opened(generated=generated), *texts)
    # Two of four pass two of three tests; one passes two others, alone.
    assert [c.score for c in result.candidates] == pytest.approx([0.0, 1 / 3, 1 / 3, 1 / 6])
    assert result.candidates[1].details["alike"] == 2
    assert "assert add(1, 1) == 3 failed: it gave 2" in result.candidates[1].feedback


@needs_sandbox
async def test_with_examples_those_come_first(opened: Any) -> None:
    verifier = opened("assert add(5, 5) == 10", generated=["assert add(1, 2) == 3"])
    three = "def add(a, b): return 3"
    result = await scored(verifier, three, RIGHT, three, three)
    assert result.text == RIGHT


@needs_sandbox
async def test_a_model_writes_the_tests_and_its_usage_counts(opened: Any) -> None:
    writer = ScriptedModel(["```python\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n```", "assert add(1, 2) == 3"])
    result = await scored(opened(generated=writer, draws=2), WRONG, RIGHT, RIGHT, budget=Budget(calls=30))
    assert result.text == RIGHT and result.score == pytest.approx(2 / 3)
    assert result.usage.by_role["verifier"].calls == 2
    assert result.usage.calls == 5


@needs_sandbox
async def test_a_model_that_writes_no_tests_is_an_error(opened: Any) -> None:
    with pytest.raises(VerifierError, match="no generated test could be read"):
        await scored(opened(generated=ScriptedModel(["I would rather not."])), RIGHT)


@needs_sandbox
async def test_the_two_forms_are_what_the_engine_takes_them_for(opened: Any) -> None:
    single, together = opened("assert True"), opened(generated=["assert True"])
    assert isinstance(single, Verifier) and not isinstance(single, SetVerifier)
    assert isinstance(together, SetVerifier) and not isinstance(together, Verifier)
    assert isinstance(single, CodeTests) and isinstance(together, CodeTests)
    assert await single.bound(Problem("?"), 10) == await together.bound(Problem("?"), 10) == FREE
    assert repr(single) == f"CodeTests({single.sandbox.kind})"
    assert await single.program(Candidate(Problem("?"), "```\nx\n```")) == "x\n"


class Failing:
    def close(self) -> None: ...

    async def check(self, request: Any) -> Any:
        raise Broken("it is gone")


@needs_sandbox
@pytest.mark.parametrize("settings", [{"tests": ["assert True"]}, {"generated": ["assert True"]}])
async def test_a_sandbox_that_fails_is_an_error_and_no_score(settings: dict[str, Any]) -> None:
    verifier: Any = CodeTests(**settings)
    verifier._pool = Failing()
    with pytest.raises((AllCandidatesFailed, VerifierError), match=r"the sandbox .* failed: it is gone"):
        await scored(verifier, RIGHT, WRONG)


@needs_sandbox
async def test_a_function_that_gives_no_program_is_an_error(opened: Any) -> None:
    with pytest.raises(AllCandidatesFailed, match="returned None for a candidate; return its source"):
        await scored(opened("assert True", program=lambda problem, candidate: None), RIGHT)


# Settings


@pytest.mark.parametrize(("settings", "says"), [
    ({}, "nothing to test with"),
    ({"tests": "assert True"}, "tests='assert True' must be a list"),
    ({"tests": ["assert f( =="]}, r"tests\[0\]='assert f\( ==' is not Python"),
    ({"tests": [1]}, "must be a list of texts"),
    ({"examples": "readme"}, "examples='readme'"),
    ({"tests": ["x"], "timeout": 0}, "timeout=0"),
    ({"tests": ["x"], "timeout": float("nan")}, "timeout=nan"),
    ({"tests": ["x"], "test_timeout": "1"}, "test_timeout='1'"),
    ({"tests": ["x"], "memory": 8}, "memory=8 must be a whole number of at least 64"),
    ({"tests": ["x"], "workers": 0}, "workers=0"),
    ({"generated": ["x"], "most": 0}, "most=0"),
    ({"generated": "assert f(1)"}, "generated='assert f"),
    ({"tests": ["x"], "sandbox": "docker"}, "sandbox='docker' is not known"),
    ({"tests": ["x"], "unsafe": "no"}, "unsafe='no'"),
])  # fmt: skip
def test_bad_settings_are_refused_in_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        CodeTests(**settings)
    assert "\n" not in str(caught.value)


# The contract that all verifiers keep


@needs_sandbox
class TestContract(VerifierContract):
    texts = (RIGHT, WRONG, "def add(a, b):\n    return sum([a, b])\n")

    @pytest.fixture(autouse=True, params=[{"tests": ["assert add(1, 2) == 3"]}, {"generated": ["assert add(2, 2)"]}])
    def made(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.settings, self.opened = request.param, list[CodeTests]()
        yield
        for verifier in self.opened:
            verifier.close()

    def make(self) -> Any:
        self.opened.append(CodeTests(**self.settings))
        return self.opened[-1]


# The filter of system calls, on both machines: what it says is worked out here as the kernel does it


def verdict(program: bytes, machine: int, number: int, *arguments: int) -> int:
    data = struct.pack("=IIQ6Q", number, machine, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code, place, loaded = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        what, yes, no, value = code[place]
        place += 1
        if what == 0x06:
            return int(value)
        if what == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        else:
            place += yes if (loaded == value if what == 0x15 else loaded >= value) else no


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is of Linux")
@pytest.mark.parametrize(("name", "audit", "allowed", "refused", "ioctl", "fcntl", "pair"), [
    # read, write, openat, mmap, exit_group; clone, execve, kill, tgkill, ptrace, socket, connect, bind, chmod, chown,
    # mount, unshare, shmget, memfd_create, bpf, io_uring_setup, setrlimit, prctl, mknod or mknodat, pidfd_send_signal
    ("x86_64", 0xC000003E, (0, 1, 257, 9, 231), (56, 57, 58, 59, 62, 234, 101, 41, 42, 49, 90, 92, 165, 272, 29, 319,
     321, 425, 160, 157, 133, 424), 16, 72, 53),
    ("aarch64", 0xC00000B7, (63, 64, 56, 222, 94), (220, 221, 129, 131, 117, 198, 203, 200, 53, 54, 40, 97, 194, 279,
     280, 425, 164, 167, 33, 424), 29, 25, 199),
])  # fmt: skip
def test_the_filter_on_each_machine(
    name: str, audit: int, allowed: tuple[int, ...], refused: tuple[int, ...], ioctl: int, fcntl: int, pair: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tts_plugins.verifiers._sandbox import kernel

    monkeypatch.setattr("platform.machine", lambda: name)
    program, allow, eperm, enosys, kill = kernel.seccomp_filter(), 0x7FFF0000, 0x50001, 0x50026, 0x80000000
    assert {verdict(program, audit, n) for n in allowed} == {allow}
    assert {verdict(program, audit, n) for n in refused} == {eperm}
    assert verdict(program, audit, 435) == verdict(program, audit, 9999) == enosys
    assert verdict(program, audit, 0x40000000) == enosys, "x32"
    assert verdict(program, 0x40000003, 1) == kill, "calls of another machine"
    assert verdict(program, audit, ioctl, 0, 0x5401) == allow
    assert verdict(program, audit, ioctl, 0, 0x5412) == eperm, "typing into a terminal"
    assert verdict(program, audit, fcntl, 0, 1) == allow
    assert verdict(program, audit, fcntl, 0, 8) == eperm, "signals to another"
    assert verdict(program, audit, pair, 1, 0x80001) == allow
    assert verdict(program, audit, pair, 1, 0x80002) == eperm, "datagrams"
    assert len(program) // 8 < 4096


def test_a_machine_without_a_list_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = pytest.importorskip("tts_plugins.verifiers._sandbox.kernel")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no list of system calls for riscv64"):
        kernel.seccomp_filter()


# The benchmark


@needs_sandbox
def test_the_benchmark_chooses_and_resumes(tmp_path: Path) -> None:
    texts = [(RIGHT, True), (WRONG, False), (WRONG, False), ("def add(a, b): return sum([a, b])", True)]
    made = [PoolCandidate(text=f"{text}# {i}", correct=correct) for i, (text, correct) in enumerate(texts)]
    made += [PoolCandidate(text=WRONG, correct=False)] * 2
    extra = {"examples": ["assert add(1, 2) == 3"], "generated_tests": ["assert add(2, 2) == 4", "assert add(1, 1) =="]}
    problem = PoolProblem(id="p", prompt="import os\n", candidates=tuple(made), extra=extra)
    pool = Pool(header=PoolHeader(model="m", dataset="d"), problems=(problem,))
    pool.write(tmp_path / "humaneval_codegen16b.jsonl.gz")
    command = [sys.executable, "-m", "benchmarks.code_tests", "--only", "humaneval", "--pools", str(tmp_path),
               "--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "rows.json")]  # fmt: skip
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    for ran in (5, 0):
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"running {ran} of 5 programs (6 samples)" in done.stdout
    rows = {row["what"]: row["figures"] for row in json.loads((tmp_path / "rows.json").read_text())}
    values = {name: rows[f"best of 100, {name}"]["value"] for name in ("random", "identical programs", "both")}
    assert values == pytest.approx({"random": 1 / 3, "identical programs": 0.0, "both": 1.0})


# Programs as people write them

GOOD = "```python\ndef f(x):\n    return x + 1\n```"
DRAFT = "```python\ndef f(x):\n    return nothing_yet(\n```\nNo, better:\n```python\ndef f(x):\n    return x + 1\n```"
FORMS = {
    "a draft that does not parse": DRAFT,
    "a draft that does": DRAFT.replace("nothing_yet(", "1 / 0"),
    "a draft in a thought": f"<think>```python\ndef f(x):\n    exit()\n```</think>\n{GOOD}",
    "inside a list": "1. Write it:\n\n   ```python\n   def f(x):\n       return x + 1\n   ```\n\n2. Run it.",
    "ipython": "```ipython\n%matplotlib inline\n!pip install x\ndef f(x):\n    return x + 1\n```",
    "with a session of a shell": "```python\ndef f(x):\n    return x + 1\n```\n```\n$ python f.py\n2\n```",
    "with a session of Python": "```python\n>>> f(1)\n2\n```\n```python\ndef f(x):\n    return x + 1\n```",
    "with an example of use": f"{GOOD}\nUse it so:\n```python\nprint(f(int(input())))\n```",
    "in two parts": f"```python\nimport math\nONE = 1\n```\nand\n{GOOD}".replace("+ 1", "+ math.floor(ONE)"),
    "line ends of Windows": "```python\r\ndef f(x):\r\n    return x + 1\r\n```\r\n",
    "output beside it": "```python\ndef f(x):\n    return x + 1\n```\nIt prints\n```text\n2\n```",
}


@pytest.mark.parametrize("form", FORMS)
async def test_the_blocks_that_belong_together_are_the_program(form: str) -> None:
    with CodeTests(["assert f(1) == 2"]) as verifier:
        result = await solve("q", model=ScriptedModel([FORMS[form]]), strategy=BestOfN(n=1), verifier=verifier)
    assert result.score == 1.0, result.best.feedback


SUM = "a, b = map(int, input().split())\nprint(a + b)"


@pytest.mark.parametrize(
    ("program", "score"),
    [
        (SUM, 1.0),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", 1.0),
        ("print(sum(map(int, open(0).read().split())), end='   \\n\\n')", 1.0),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit(0)", 1.0),
        (
            "def main():\n    print(sum(map(float, input().split())))\nif __name__ == '__main__':\n    main()",
            1.0,
        ),
        ("a, b = map(int, input().split())\nprint(a - b)", 0.0),
        ("print(3)", 0.5),
        ("import sys\nsys.exit(1)", 0.0),
        ("while True: pass", 0.0),
        ("print('", 0.0),
        ("", 0.0),
    ],
)
async def test_programs_that_read_and_write(program: str, score: float) -> None:
    with CodeTests(io=[("1 2\n", "3\n"), ("20 22", "42")], test_timeout=1.0) as verifier:
        text = f"```python\n{program}\n```"
        result = await solve("q", model=ScriptedModel([text]), strategy=BestOfN(n=1), verifier=verifier)
    assert result.score == score
    assert bool(result.best.feedback) == (score < 1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"io": []}, "io="),
        ({"io": "1"}, "io="),
        ({"io": [("1",)]}, "io="),
        ({"io": [(1, 2)]}, "io="),
        ({"tests": ["def check(): assert f(1) == 2"]}, "tests nothing"),
        ({"tests": ["import math"]}, "tests nothing"),
        ({"tests": ["x = 1"]}, "tests nothing"),
        ({"io": [("1", "2")], "generated": ["assert f"]}, "do not go together"),
    ],
)
def test_a_test_that_tests_nothing_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CodeTests(**settings)


async def test_functions_of_tests_are_called() -> None:
    with CodeTests(["def test_it():\n    assert f(1) == 3"]) as verifier:
        result = await solve("q", model=ScriptedModel(["def f(x): return 2"]), strategy=BestOfN(n=1), verifier=verifier)
    assert result.score == 0.0


def test_an_example_is_read_to_the_end_of_its_expression() -> None:
    assert examples_of("def f(x):\n    pass\n\nf(2) == 3 + 1") == []
    assert examples_of("f(2) == 3 if x else 4") == []
    assert examples_of("f(2) == 4, since 2 + 2 is 4.") == ["assert f(2) == 4"]
    assert examples_of("f(2) == 4.") == ["assert f(2) == 4.0"] or examples_of("f(2) == 4.") == ["assert f(2) == 4"]
