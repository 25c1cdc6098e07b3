"""Exact checks for two pools: the sum of a Game of 24, and the examples of a docstring, which run the program.

The programs are a model's, from a public recording; they run in a child process each, with limits on time, memory and
files, in an empty folder, without the environment.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from tts_plugins.pools import Pool, PoolCandidate, PoolProblem

_STEP = re.compile(r"(-?\d+) [-+*/] (-?\d+) = .*?\(left: ([^)]*)\)")

_WORKER = r"""
import json, os, resource, signal, sys
def run(program, tests):
    passed = 0
    try:
        space = {}
        exec(program, space)
    except BaseException:
        return 0
    for test in tests:
        try:
            exec(test, space)
            passed += 1
        except BaseException:
            pass
    return passed
for line in sys.stdin:
    job = json.loads(line)
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(r)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        signal.setitimer(signal.ITIMER_REAL, 3)
        passed = run(job["program"], job["tests"])
        os.write(w, b"%d" % passed)
        os._exit(0)
    os.close(w)
    said = os.read(r, 16)
    os.close(r)
    os.waitpid(pid, 0)
    print(said.decode() or "0", flush=True)
"""


def game24(pool: Pool) -> Pool:
    """The pool with score 1 where the expression uses each of the puzzle's numbers once and makes 24, else 0."""
    return replace(pool, problems=tuple(_game(p) for p in pool.problems))


def _game(problem: PoolProblem) -> PoolProblem:
    starts: Counter[tuple[int, ...]] = Counter()
    for c in problem.candidates:
        # A first step that names two numbers and says which are left names all four; the most frequent reading holds.
        if c.text and (found := _STEP.search(c.text)):
            left = [int(x) for x in re.findall(r"-?\d+", found[3])]
            for i in range(len(left)):
                starts[tuple(sorted([int(found[1]), int(found[2]), *left[:i], *left[i + 1 :]]))] += 1
    numbers = starts.most_common(1)[0][0] if starts else ()
    made = tuple(replace(c, score=float(_makes24(c.answer, numbers))) for c in problem.candidates)
    return replace(problem, candidates=made)


def _makes24(answer: str | None, numbers: tuple[int, ...]) -> bool:
    if answer is None:
        return False
    try:
        tree = ast.parse(answer.partition("=")[0].strip(), mode="eval")
        used = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        return sorted(used) == sorted(numbers) and _value(tree.body) == 24
    except (SyntaxError, ValueError, ZeroDivisionError, TypeError):
        return False


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.BinOp):
        a, b = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return a + b
        if isinstance(node.op, ast.Sub):
            return a - b
        if isinstance(node.op, ast.Mult):
            return a * b
        if isinstance(node.op, ast.Div):
            return a / b
    raise ValueError("no sum")


def examples(pool: Pool, cache: Path) -> Pool:
    """The problems that have examples, with the share of them that each program passes as its score.

    Results are kept in `cache`, under a name that depends on the programs and the examples.
    """
    having = [p for p in pool.problems if p.extra.get("examples")]
    jobs = [(p, c) for p in having for c in p.candidates]
    lines = [
        json.dumps({"program": (p.prompt or "") + (c.text or ""), "tests": list(p.extra["examples"])}) for p, c in jobs
    ]
    different = list(dict.fromkeys(lines))
    name = hashlib.sha256("\n".join(different).encode()).hexdigest()[:16]
    kept = cache / f"examples-{name}.json"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(_run(different)))
        partial.replace(kept)
    passed = dict(zip(different, json.loads(kept.read_text()), strict=True))
    scores = iter([passed[line] for line in lines])

    def scored(p: PoolProblem, c: PoolCandidate) -> PoolCandidate:
        return replace(c, score=next(scores) / len(p.extra["examples"]))

    problems = tuple(replace(p, candidates=tuple(scored(p, c) for c in p.candidates)) for p in having)
    return replace(pool, problems=problems)


def _run(jobs: list[str]) -> list[int]:
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _WORKER], input="\n".join(jobs) + "\n", capture_output=True, text=True,
            cwd=empty, env={}, check=True,
        )  # fmt: skip
    return [int(line) for line in done.stdout.split()]
