"""Answers, measured: `python -m benchmarks.answers [--cases DIR] [--math-verify DIR] [--simple-evals DIR] …`.

What is read in the cases written for this, in public suites (read from checkouts given on the command line, none is
part of this repository), and how long a reply takes. Rows of suites that are not given are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._answers import suites
from benchmarks._files import write_json
from benchmarks._rows import Row, table
from tts_plugins import Candidate, Problem
from tts_plugins.answers import extract, normalise

CASES = Path(__file__).parents[1].parent / "shared" / "cases"
KEY = "abcd2efg"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row that must be met is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES, metavar="DIR", help="(../shared/cases)")
    for name, what in (("math-verify", "huggingface/Math-Verify"), ("simple-evals", "openai/simple-evals"),
                       ("url-nlp", "google-research/url-nlp")):  # fmt: skip
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"a checkout of {what}")
    parser.add_argument("--human-eval", type=Path, metavar="FILE", help="HumanEval.jsonl.gz")
    parser.add_argument("--replies", type=Path, metavar="FILE", help="Qwen2.5-Math's math_cot_100.jsonl: 100 x 8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows = [*(_cases(given.cases) if given.cases.is_dir() else ()), *_speed()]
    if given.math_verify:
        rows += asyncio.run(_math_verify(given.math_verify))
    if given.simple_evals:
        rows += _markers(given.simple_evals)
    if given.url_nlp:
        rows.append(
            _share(3, "MGSM: sentences of its exemplars read", *_counted(suites.mgsm(given.url_nlp)[1]), least=0.91)
        )
    if given.replies:
        rows.append(_replies(given.replies))
    if given.human_eval:
        rows.append(_programs(given.human_eval))
    print(table(rows))
    if given.json:
        write_json(given.json, [row.to_dict() for row in rows])
    return 0 if all(row.met is not False for row in rows) else 1


def _share(number: int, what: str, good: int, total: int, *, least: float) -> Row:
    return Row(number=number, what=what, must=f">= {least:.0%}", ours=f"{good} / {total}", met=good >= least * total,
               figures={"good": good, "total": total})  # fmt: skip


def _counted(pairs: list[tuple[str, str]]) -> tuple[int, int]:
    return sum(extract(text) == answer for text, answer in pairs), len(pairs)


def _cases(folder: Path) -> Iterator[Row]:
    for name, what in (("answer_texts", "texts"), ("answer_languages", "languages")):
        found = suites.cases(folder, name)
        yield _share(1, f"cases: {what} read as a person does", sum(map(_as_read, found)), len(found), least=0.95)
    pairs = suites.cases(folder, "answer_pairs")
    alike = [_boxed(case["a"]) == _boxed(case["b"]) for case in pairs]
    right = sum(a == c["same"] for a, c in zip(alike, pairs, strict=True))
    yield _share(1, "cases: pairs of answers", right, len(pairs), least=0.95)
    merged = sum(a and not c["same"] for a, c in zip(alike, pairs, strict=True))
    yield Row(number=1, what="cases: different answers under one key", must="0", ours=str(merged), met=merged == 0)
    replies = suites.cases(folder, "judge_replies")
    yield Row(
        number=1, what="cases: judge replies read at once", ours=f"{sum(map(_verdict, replies))} / {len(replies)}"
    )


def _boxed(answer: str) -> str:
    return extract(f"\\boxed{{{answer}}}") or ""


def _as_read(case: dict[str, Any]) -> bool:
    found, wanted = extract(case["text"]), case["answer"]
    if wanted in ("*", "*none", "*some"):
        return wanted == "*" or (found is not None) == (wanted == "*some")
    return found is not None and found.lower() == wanted.lstrip("*")


def _verdict(case: dict[str, Any]) -> bool:
    from tts_plugins.verifiers._judge_replies import Unreadable, number, read_verdict

    reply = case["reply"].replace("KEYUP", KEY.upper()).replace("KEY", KEY)
    try:
        return number(read_verdict(reply, KEY), "score", (1, 5)) >= 0
    except Unreadable:
        return False


def _speed() -> Iterator[Row]:
    texts = {
        "English": "So the sum of 3 and 4 is 7, which is what we need. " * 38 + "\nThe answer is \\boxed{1,234}.",
        "German": "Die Summe von 3 und 4 ist 7, und das ist, was wir suchen. " * 33 + "\nDie Antwort lautet 1.234,5.",
        "Chinese": "我们一步一步计算，三加四等于七，然后我们得到结果。" * 78 + "\n所以答案为 1,234。",
    }
    for language, text in texts.items():
        extract(text)  # the patterns are built when the first text comes
        seconds = min(_seconds(text) for _ in range(20))
        longer = min(_seconds(text * 10) for _ in range(3))
        what = f"a reply of {len(text)} characters, {language}; one of ten times as many"
        yield Row(number=5, what=what, must="<= 1 ms",
                  ours=f"{seconds * 1e3:.2f} ms; {longer * 1e3:.1f} ms", met=seconds <= 1e-3)  # fmt: skip


def _seconds(text: str) -> float:
    start = time.perf_counter()
    extract(text)
    return time.perf_counter() - start


async def _math_verify(folder: Path) -> list[Row]:
    from tts_plugins.verifiers import MathAnswer, MathGroups

    pairs = list(suites.math_verify_pairs(folder))
    groups, votes, keys = MathGroups(), Counter[bool](), Counter[bool]()
    grades = Counter[bool]()
    for gold, pred, equal in pairs:
        ours, theirs = extract(gold), extract(pred)
        if ours is not None and theirs is not None:
            keys[equal] += ours == theirs
            votes[equal] += ours == theirs or await groups.equal(ours.raw, theirs.raw)
    grader = MathAnswer(lambda problem: str(problem.metadata["answer"]))
    for gold, pred, equal in pairs:
        candidate = Candidate(problem=Problem("q", metadata={"answer": gold}), text=pred)
        grades[equal] += (await grader.score(None, candidate)).value == 1.0  # type: ignore[arg-type]
    groups.close()
    grader.close()
    total = Counter(equal for *_, equal in pairs)
    unequal = f"{votes[False]} of {total[False]}"
    return [
        Row(number=2, what="Math-Verify's tests: equal pairs under one key", ours=f"{keys[True]} / {total[True]}"),
        Row(number=2, what="Math-Verify's tests: one vote of equal pairs (MathGroups)", must=">= 190",
            ours=f"{votes[True]} / {total[True]}", met=votes[True] >= 190),
        Row(number=2, what="Math-Verify's tests: unequal pairs in one vote", must="0",
            ours=unequal, met=not votes[False]),
        Row(number=2, what="Math-Verify's tests: MathAnswer grades equal pairs right", must=">= 220",
            ours=f"{grades[True]} / {total[True]}", met=grades[True] >= 220),
        Row(number=2, what="Math-Verify's tests: MathAnswer accepts unequal pairs", must="0",
            ours=f"{grades[False]} of {total[False]}", met=not grades[False]),
    ]  # fmt: skip


def _markers(folder: Path) -> Iterator[Row]:
    markers = suites.simple_evals_markers(folder)
    forms = ("{} B", "Some text.\n\n{} **B**", "{} (B)", "{}B")
    read = sum(all(extract(form.format(marker)) == "B" for form in forms) for marker in markers)
    yield _share(3, "simple-evals: answer markers read, in four forms each", read, len(markers), least=1.0)
    found = suites.prefixes(folder)
    read = sum(extract(f"1 + 41\n\n{prefix}: 42") == "42" for prefix in found)
    yield _share(3, "MGSM: answer prefixes read", read, len(found), least=1.0)


def _replies(path: Path) -> Row:
    """The majority of eight replies, by our keys and by math-verify's clusters of its own readings."""
    from math_verify import parse, verify

    ours = theirs = equal = 0
    problems = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for problem in problems:
        gold = parse(f"${problem['answer']}$")
        votes = [key for key in map(extract, problem["code"]) if key is not None]
        first = Counter(votes).most_common(1)[0][0] if votes else ""
        raw = next((key.raw for key in votes if key == first), "")
        clusters: list[list[Any]] = []
        for reading in map(parse, problem["code"]):
            home = next((c for c in clusters if verify(c[0], reading)), None)
            home.append(reading) if home is not None else clusters.append([reading])
        leading = max(clusters, key=len)[0]
        right = normalise(raw) == normalise(problem["answer"]) or bool(verify(gold, parse(f"${raw}$")))
        other = bool(verify(gold, leading))
        ours, theirs, equal = ours + right, theirs + other, equal + (right == other)
    return Row(number=4, what="recorded replies: majority right by our keys; by math-verify's clusters; alike",
               must="not worse", ours=f"{ours}; {theirs}; {equal} of {len(problems)}", met=ours >= theirs)  # fmt: skip


def _programs(path: Path) -> Row:
    from tts_plugins.verifiers.code._program_text import program_of

    good = total = 0
    for task in suites.human_eval(path):
        for text in suites.wrapped(task["prompt"], task["canonical_solution"]):
            source = f"{program_of(text, task['prompt'])}\n{task['test']}\ncheck({task['entry_point']})\n"
            run = subprocess.run(
                [sys.executable, "-"], input=source.encode(), capture_output=True, timeout=60, check=False
            )
            good, total = good + (run.returncode == 0), total + 1
    return _share(6, "HumanEval: canonical solutions in four wrappings pass", good, total, least=1.0)


if __name__ == "__main__":
    sys.exit(main())
