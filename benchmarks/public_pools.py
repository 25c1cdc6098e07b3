"""Pools of votes that others recorded and published: `python -m benchmarks.public_pools CLONES OUT`.

CLONES holds clones of the repositories in `sources` (`git clone https://github.com/OWNER/NAME CLONES/NAME`); those that
are not there are left out. OUT gets a pool for each recording, for `python -m benchmarks.promises --shipped OUT`. No
recording is part of this package. What is taken was decided before anything was measured:

1. samples of one model for one prompt at one temperature above 0, drawn independently of each other;
2. answers that stand in the recording, or after the words that its prompt asks for, short enough to vote on;
3. at least 100 questions with a known answer and at least 8 samples each;
4. an accuracy that agrees with what its authors report: samples that stand under wrong questions show there.

Of one model on one data set in one repository one recording is taken: that with the most samples, then chain of thought
with the most examples, then the temperature nearest to 0.7, then the first by name.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

from tts_plugins.answers import normalise
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.verifiers import MathAnswer

Record = dict[str, Any]
Read = Callable[[str], str]
ESTIMATED = "estimated, characters / 4"


@dataclass(frozen=True)
class Source:
    """A recording: where it stands, how it is read, and what its authors say of it.

    Attributes:
        problems: reads them, by a function that reads a file of the repository.
        tokens: how they were counted; None where they were not.
    """

    name: str
    repository: str
    licence: str
    file: str
    model: str
    dataset: str
    problems: Callable[[Read, str], Iterator[PoolProblem]]
    tokens: str | None = None


def _problem(number: object, gold: str, candidates: Iterable[PoolCandidate]) -> PoolProblem:
    return PoolProblem(id=str(number), prompt=None, answer=gold, level=None, candidates=tuple(candidates))


def _graded(number: object, gold: str, answers: Iterable[str | None], texts: Sequence[str] = ()) -> PoolProblem:
    """Return a problem whose answers are right if they equal the known one; tokens by the length of the texts."""
    made = (
        PoolCandidate(answer=a, correct=a == gold, tokens=max(1, len(texts[i]) // 4) if texts else None)
        for i, a in enumerate(answers)
    )
    return _problem(number, gold, made)


def _lines(text: str) -> Iterator[Record]:
    return (json.loads(line) for line in text.split("\n") if line.strip())


def _infinity(read: Read, file: str) -> Iterator[Record]:
    """Read Best-of-Infinity: (answer, tokens) of each sample; without tokens it was not generated, and is left out."""
    for row in _lines(read(file)):
        there = [(answer, tokens) for answer, tokens in row["all_answers"] if tokens]
        if there:
            yield {**row, "all_answers": there}


def _letters(read: Read, file: str) -> Iterator[PoolProblem]:
    """Read Best-of-Infinity's answers to multiple-choice questions."""
    for row in _infinity(read, file):
        made = (PoolCandidate(answer=a if a in _CHOICES else None, correct=a == row["gold_answer"], tokens=int(t))
                for a, t in row["all_answers"])  # fmt: skip
        yield _problem(row["problem_num"], row["gold_answer"], made)


def _formulas(read: Read, file: str) -> Iterator[PoolProblem]:
    """Read Best-of-Infinity's formulas: votes by normal form, right if they equal the known answer as formulas."""
    with closing(MathAnswer()) as graded:
        for row in _infinity(read, file):
            gold, known, made = row["gold_answer"], dict[str, bool](), list[PoolCandidate]()
            for answer, tokens in row["all_answers"]:
                key = normalise(answer) if answer else ""
                if key not in known:
                    known[key] = bool(key) and graded.equal_here(answer, gold)
                made.append(PoolCandidate(answer=key or None, correct=known[key], tokens=int(tokens)))
            yield _problem(row["problem_num"], gold, made)


def _exam(read: Read, file: str) -> Iterator[PoolProblem]:
    for row in csv.DictReader(io.StringIO(read(file))):
        letters = [row[f"Answer {i}"] for i in range(1, 11)]
        yield _graded(row["Problem ID"], row["Correct Answer"], (a if a in _CHOICES else None for a in letters))


def _logic(read: Read, file: str) -> Iterator[PoolProblem]:
    golds = json.loads(read(file.replace("generations_prc", "references")))
    for number, (gold, answers) in enumerate(zip(golds, json.loads(read(file)), strict=True)):
        yield _graded(number, gold, (None if a == "Error" else a for a in answers))


def _dates(read: Read, file: str) -> Iterator[PoolProblem]:
    golds = [row["answer"].split("#### ")[-1] for row in _lines(read("data/date/test.jsonl"))]
    for row, gold in zip(_lines(read(file)), golds, strict=True):
        found = [re.findall(r"answer is (\d\d/\d\d/\d{4})", text) for text in row["completions"]]
        yield _graded(row["id"], gold, (f[-1] if f else None for f in found), row["completions"])


def _plans(read: Read, file: str) -> Iterator[PoolProblem]:
    """Read a robot's plans: one of several known plans is right, and a step to where it stands counts for nothing."""
    for row, known in zip(_lines(read(file)), _lines(read("data/saycan/test.jsonl")), strict=True):
        golds = {_plan(re.split(r"\n", gold)) for gold in json.loads(known["answer"])}
        made = list[PoolCandidate]()
        for text in row["completions"]:
            found = re.findall(r"^Plan: (.*)", text, re.M)
            plan = _plan(re.split(r", |\\n", found[0])) if found else ""
            made.append(PoolCandidate(answer=plan or None, correct=plan in golds, tokens=max(1, len(text) // 4)))
        yield _problem(row["id"], "; ".join(sorted(golds)), made)


def _plan(steps: Iterable[str]) -> str:
    said = (step.split(". ", 1)[1].strip(" .") for step in steps if ". " in step)
    return ", ".join(step for step in said if "find(initial)" not in step)


def _cascade(read: Read, file: str) -> Iterator[PoolProblem]:
    """Read Mixture of Thoughts: the answers as its authors read them; a program that fails has none."""
    for number, row in enumerate(json.loads(read(file))):
        gold = next(iter(row["answer"])) if isinstance(row["answer"], dict) else row["answer"]
        gold, answers = _number(gold), [_number(a) for a in row["results"]]
        missing = len(row["generated"]) - len(answers)
        yield _graded(number, gold, [*answers, *[None] * missing], row["generated"])


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _last_letters(read: Read, file: str) -> Iterator[PoolProblem]:
    for number, row in enumerate(_lines(read(file))):
        said = [re.sub("[^a-z]", "", t.lower().split("the answer is")[-1]) for t in row["generated_answer"]]
        yield _graded(number, row["answer"], (s or None for s in said), row["generated_answer"])


def _natural_program(read: Read, file: str) -> Iterator[PoolProblem]:
    for row in json.loads(read(file)):
        made = (
            PoolCandidate(answer=str(a) if a else None, correct=bool(right), tokens=max(1, len(str(text)) // 4))
            for a, right, text in zip(row["pred_answers"], row["per_sample_correct"], row["model_outputs"], strict=True)
        )
        yield _problem(row["example_idx"], row["final_answer"], made)


def _scored(read: Read, file: str) -> Iterator[PoolProblem]:
    """Read votes with a reward model's raw scores, which the logistic function brings into [0, 1]."""
    for row in _lines(read(file)):
        made = (
            PoolCandidate(answer=normalise(a) or None, correct=right, tokens=max(1, len(text) // 4),
                          score=1 / (1 + exp(-score[0])))
            for a, right, text, score in zip(row["pred"], row["score"], row["code"], row["pred_score"], strict=True)
        )  # fmt: skip
        yield _problem(row["idx"], row["answer"], made)


_CHOICES = set("ABCDEFGHIJ")


def sources() -> Iterator[Source]:
    """Name every recording that was found and is taken."""
    infinity = "jkomiyama/BoInf-code-publish", "MIT"
    gpqa, math = ("GPQA Diamond", "gpqa_diamond", _letters), ("MATH-500", "math500", _formulas)
    for model, (dataset, name, read) in (*itertools.product(_REASONERS, (gpqa, math)), ("Qwen3-14B", math)):
        file = f"boinf/jsonl/analysis_{name}_{model}.jsonl"
        yield Source(f"{name}_{model}", *infinity, file, model, dataset, read, "counted")
    exams = "matthewrenze/jhu-llm-temperature", "BSD-2-Clause"
    for model, exam in (*((m, "comprehensive") for m in _EXAMINED), *(("gpt-35-turbo", e) for e in _EXAMS)):
        file = f"data/details/{model} - chain_of_thought - {exam}-100 - temp-0.7.csv"
        yield Source(f"exam_{exam}_{model}", *exams, file, model, f"{exam}-100", _exam)
    for model, dataset in _LOGICIANS:
        file = f"outputs/{model}_{dataset}-cot-8shot_generations_prc.json"
        yield Source(f"{dataset}_{model}", "benlipkin/linc", "none stated", file, model, dataset, _logic)
    faithful = "veronica320/Faithful-COT", "MIT"
    for dataset, read in (("date", _dates), ("saycan", _plans)):
        file = f"output_dir/{dataset}/test/code002_LtM_n:40/predictions.jsonl"
        yield Source(f"{dataset}_code-davinci-002", *faithful, file, "code-davinci-002", dataset, read, ESTIMATED)
    cascade = "MurongYue/LLM_MoT_cascade", "none stated"
    for model, dataset, file in (
        ("gpt-3.5-turbo", "date", "GPT3_result/date_cot1_40.json"),
        ("llama-2-13b", "date", "llama2_13B_result/date_cot1.json"),
        ("llama-2-13b", "gsm8k", "llama2_13B_result/gsm_pot1.json"),
    ):
        yield Source(f"{dataset}_{model}", *cascade, file, model, dataset, _cascade, ESTIMATED)
    for name, model, dataset, repository, licence, file, read in (
        ("last_letters_gpt-3.5-turbo", "gpt-3.5-turbo", "last letters", "Yiwei98/ESC", "none stated",
         "GPT3.5_result/last_letters/T0.7.jsonl", _last_letters),
        ("date_gpt-3.5-turbo_natural_program", "gpt-3.5-turbo", "date", "lz1oceani/verify_cot", "CC-BY-4.0",
         "results/chatgpt3.5/natural_program/date_np.json", _natural_program),
        ("math_qwen2.5-math", "Qwen2.5-Math", "MATH, 100 problems", "QwenLM/Qwen2.5-Math", "none stated",
         "evaluation/data/eval_rm_maj_example/math_cot_100.jsonl", _scored),
    ):  # fmt: skip
        yield Source(name, repository, licence, file, model, dataset, read, ESTIMATED)


_REASONERS = ("EXAONE-Deep-32B", "MetaStone-S1-32B", "NVIDIA-Nemotron-Nano-9B-v2", "Phi-4-reasoning",
              "Qwen3-30B-A3B-Thinking-2507", "gpt-oss-20b")  # fmt: skip
_EXAMINED = ("claude-3-opus-20240229", "cohere-command-r-plus", "gemini-1.0-pro", "gemini-1.5-pro-preview-0409",
             "gpt-35-turbo", "gpt-4", "llama-2-70b-chat", "llama-2-7b-chat", "mistral-large")  # fmt: skip
_EXAMS = ("aqua-rat", "arc-challenge-test", "hellaswag_val", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc",
          "medmcqa-dev", "sat-en", "sat-math")  # fmt: skip
_LOGICIANS = (("gpt-4-0613", "folio"), *((m, d) for m in ("gpt-3.5-turbo-16k-0613", "starcoderplus")
                                          for d in ("folio", "proofwriter")))  # fmt: skip


def converted(source: Source, clone: Path) -> Pool:
    """Return the pool of a recording in a clone of its repository."""

    def read(file: str) -> str:
        shown = subprocess.run(["git", "-C", str(clone), "show", f"HEAD:{file}"], capture_output=True, check=True)
        return shown.stdout.decode()

    header = PoolHeader(
        model=source.model, dataset=source.dataset, source=f"{source.repository}: {source.file}",
        licence=source.licence, tokens=source.tokens,
    )  # fmt: skip
    return Pool(header=header, problems=tuple(source.problems(read, source.file)))


def described(pool: Pool) -> str:
    """Tell its size, how often a sample and the vote of all are right, and how many answers could not be read."""
    problems, most = pool.problems, max(len(p.candidates) for p in pool.problems)
    single = sum(sum(bool(c.correct) for c in p.candidates) / len(p.candidates) for p in problems) / len(problems)
    voted = 0
    for p in problems:
        leading = Counter(c.answer for c in p.candidates if c.answer is not None).most_common(1)
        voted += any(c.correct for c in p.candidates if leading and c.answer == leading[0][0])
    unread = sum(c.answer is None for p in problems for c in p.candidates) / sum(len(p.candidates) for p in problems)
    size = f"{len(problems)} x {pool.fewest}" + (f" to {most}" if most > pool.fewest else "")
    return f"{size:12} one {single:.3f}  vote {voted / len(problems):.3f}  unread {unread:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Convert what is there, and print each pool's size and accuracy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_pools", description=__doc__)
    parser.add_argument("clones", type=Path, help="folder with a clone of each repository, by its name")
    parser.add_argument("out", type=Path, help="folder for the pools")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for source in sources():
        clone = given.clones / source.repository.split("/")[1]
        if not clone.exists():
            print(f"{source.name}: no clone of {source.repository} in {given.clones}")
            continue
        pool = converted(source, clone)
        pool.write(given.out / f"{source.name}.jsonl.gz")
        print(f"{source.name:46}{described(pool)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
