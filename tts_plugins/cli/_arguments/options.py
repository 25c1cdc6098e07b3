"""The options of the commands, with their help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def panel(name: str | None) -> Callable[..., Any]:
    """Return what makes the options that a command's help shows under this heading.

    It takes the option's help, its flags where they are not those of the parameter's name, and what `typer.Option`
    takes by name.
    """

    def option(help: str, *flags: str, **more: Any) -> Any:
        return typer.Option(*flags, help=help, rich_help_panel=name, **more)

    return option


PLAIN, MODEL, SEARCH, BUDGET = panel(None), panel("Model"), panel("Search"), panel("Budget")
OUTPUT, TASK = panel("Output"), panel("Problems")

Prompt = Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="What is asked; - reads it from stdin.")]
ProblemsFile = Annotated[
    str | None,
    typer.Option(
        "--problems",
        metavar="SOURCE",
        help="Many problems instead, as bench reads them: a JSONL file, hf:NAME or gym:TASK. One JSON object for each "
        "goes to stdout.",
    ),
]
Profile = Annotated[
    str | None,
    SEARCH(
        "A named bundle that gives what is not set here; `tts-plugins profiles` lists them.",
        metavar="NAME",
        envvar="TTS_PLUGINS_PROFILE",
    ),
]
AbstainBelow = Annotated[
    float | None,
    SEARCH(
        "The least confidence with which to answer, from 0 to 1; below it, none is given (exit code 8).",
        metavar="SHARE",
    ),
]

Model = Annotated[
    str | None,
    MODEL(
        "A model's name on a server, or the path of a GGUF file; the small embedded model if left out.", metavar="NAME"
    ),
]
BaseUrl = Annotated[
    str | None,
    MODEL("An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; OpenAI's own if left out.", metavar="URL"),
]
ApiKeyEnv = Annotated[
    str | None, MODEL("The environment variable that holds its key; OPENAI_API_KEY if left out.", metavar="NAME")
]
Temperature = Annotated[float | None, MODEL("From 0 to 2; the server's own if left out, 0.8 for a local model.")]
MaxTokens = Annotated[int | None, MODEL("Tokens of one candidate at most.")]
System = Annotated[str | None, MODEL("A system message.", metavar="TEXT")]
Price = Annotated[str | None, MODEL("Dollars per million prompt and completion tokens.", metavar="IN,OUT")]
Threads = Annotated[int | None, MODEL("CPU threads of a local model; the free cores if left out.", min=1)]

LargerModel = Annotated[
    str | None,
    MODEL("A larger model at the same place, to ask where a policy or --abstain-below says so.", metavar="NAME"),
]
LargerModelPrice = Annotated[str | None, MODEL("Its dollars per million tokens, as --price.", metavar="IN,OUT")]

Strategy = Annotated[
    str | None,
    SEARCH(
        "best-of-n, self-consistency or another registered one; best-of-n if there is a verifier, else "
        "self-consistency.",
        metavar="NAME",
    ),
]
N = Annotated[int | None, SEARCH("Candidates at most; 8 if left out.", "--n")]
Select = Annotated[
    str | None, SEARCH("For best-of-n: best score, or weighted, where equal answers add up.", metavar="best|weighted")
]
AnswerKey = Annotated[
    str | None,
    SEARCH(
        "What votes: extract (the usual one), math, choice, text, a JSON pointer (/answer), regex:PATTERN, or "
        "python:file.py:function.",
        "--answer",
        metavar="WAY",
    ),
]
Stop = Annotated[
    list[str] | None,
    SEARCH(
        "Stop early: threshold:0.9, vote-decided, vote-lead:3, beta-confident:0.95, unanimous:4. Given more than "
        "once, any of them stops.",
        metavar="RULE",
    ),
]
Set = Annotated[list[str] | None, SEARCH("Another setting of the strategy.", "--set", metavar="FIELD=VALUE")]
VerifierName = Annotated[
    str | None,
    SEARCH(
        "rubric:TEXT (a judge), grounded, tool-call, sql:FILE, json-schema:FILE, code-tests:FILE.py, math, "
        "regex:PATTERN, similar:TEXT, agreement, FILE.npz of train-verifier, python:package.module:function or "
        "python:path/file.py:function; for a pool recorded, or recorded:min. The function gets (problem, candidate) "
        "and returns a score from 0 to 1, or a score and a reason.",
        metavar="VERIFIER",
    ),
]
JudgeModel = Annotated[
    str | None,
    SEARCH(
        "The model of a verifier that asks one: a server's, a .gguf, or embedding:NAME for vectors; the generator "
        "itself where left out.",
        metavar="NAME",
    ),
]
JudgeBaseUrl = Annotated[str | None, SEARCH("Its server's address.", metavar="URL")]
JudgeApiKeyEnv = Annotated[str | None, SEARCH("The environment variable with its key.", metavar="NAME")]
Seed = Annotated[int | None, SEARCH("Same seed, same requests.")]
Attempts = Annotated[int, SEARCH("Attempts at one request at most.")]

BudgetCalls = Annotated[int | None, BUDGET("Generations at most.")]
BudgetTokens = Annotated[int | None, BUDGET("Prompt and completion tokens at most.")]
BudgetUsd = Annotated[float | None, BUDGET("Dollars at most.")]
BudgetSeconds = Annotated[float | None, BUDGET("Seconds at most.")]

DryRun = Annotated[bool, OUTPUT("Say what it may cost; send and start nothing.", "--dry-run")]
Tree = Annotated[bool, OUTPUT("Print every call as a tree.", "--trace")]
Quiet = Annotated[bool, OUTPUT("No progress and no summary on stderr.", "--quiet", "-q")]

# Of `bench`, `record` and `report`

Limit = Annotated[int | None, TASK("The first so many problems only.", metavar="N", min=1)]
GradeName = Annotated[
    str | None,
    TASK(
        "What is right: answer (as the problem's gold answer; the default), recorded (a pool's records; the "
        "default on one), or python:path/file.py:function of (problem, candidate) that returns true or false. For "
        "measuring only.",
        "--grade",
        metavar="GRADE",
    ),
]
Concurrency = Annotated[int, SEARCH("Problems under way at once.", min=1)]
Params = Annotated[float | None, OUTPUT("Parameters of the model, such as 1.35e8: gives FLOPs.", metavar="N")]
VerifierParams = Annotated[float | None, OUTPUT("Parameters of the verifier, if it is a model.", metavar="N")]
LargerFile = Annotated[
    Path | None,
    OUTPUT(
        "A pool or a run of a larger model on the same problems, to compare its single answer with at matched "
        "FLOPs; needs --params and --larger-params.",
        "--larger",
        metavar="FILE",
    ),
]
LargerParams = Annotated[float | None, OUTPUT("Parameters of the larger model.", metavar="N")]
