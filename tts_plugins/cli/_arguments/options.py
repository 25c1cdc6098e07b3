"""The options of the commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _SEARCH, _BUDGET, _OUTPUT, _TASK = "Model", "Search", "Budget", "Output", "Problems"

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
    typer.Option(
        metavar="NAME",
        envvar="TTS_PLUGINS_PROFILE",
        help="A named bundle that gives what is not set here; `tts-plugins profiles` lists them.",
        rich_help_panel=_SEARCH,
    ),
]
AbstainBelow = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="The least confidence with which to answer, from 0 to 1; below it, none is given (exit code 8).",
        rich_help_panel=_SEARCH,
    ),
]

Model = Annotated[
    str | None,
    typer.Option(
        help="A model's name on a server, or the path of a GGUF file; the small embedded model if left out.",
        rich_help_panel=_MODEL,
        metavar="NAME",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; OpenAI's own if left out.",
        rich_help_panel=_MODEL,
        metavar="URL",
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        help="The environment variable that holds its key; OPENAI_API_KEY if left out.",
        rich_help_panel=_MODEL,
        metavar="NAME",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="From 0 to 2; the server's own if left out, 0.8 for a local model.", rich_help_panel=_MODEL),
]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens of one candidate at most.", rich_help_panel=_MODEL)]
System = Annotated[str | None, typer.Option(help="A system message.", rich_help_panel=_MODEL, metavar="TEXT")]
Price = Annotated[
    str | None,
    typer.Option(metavar="IN,OUT", help="Dollars per million prompt and completion tokens.", rich_help_panel=_MODEL),
]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads of a local model; the free cores if left out.", rich_help_panel=_MODEL, min=1),
]

LargerModel = Annotated[
    str | None,
    typer.Option(
        help="A larger model at the same place, for a policy that asks one if a problem looks hard.",
        rich_help_panel=_MODEL,
        metavar="NAME",
    ),
]
LargerModelPrice = Annotated[
    str | None,
    typer.Option(metavar="IN,OUT", help="Its dollars per million tokens, as --price.", rich_help_panel=_MODEL),
]

Strategy = Annotated[
    str | None,
    typer.Option(
        help="best-of-n, self-consistency or another registered one; best-of-n if there is a verifier, else "
        "self-consistency.",
        rich_help_panel=_SEARCH,
        metavar="NAME",
    ),
]
N = Annotated[int | None, typer.Option("--n", help="Candidates at most; 8 if left out.", rich_help_panel=_SEARCH)]
Select = Annotated[
    str | None,
    typer.Option(
        help="For best-of-n: best score, or weighted, where equal answers add up.",
        rich_help_panel=_SEARCH,
        metavar="best|weighted",
    ),
]
AnswerKey = Annotated[
    str | None,
    typer.Option(
        "--answer",
        help="What votes: extract (the usual one), math, choice, text, a JSON pointer (/answer), regex:PATTERN, or "
        "python:file.py:function.",
        rich_help_panel=_SEARCH,
        metavar="WAY",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Stop early: threshold:0.9, vote-decided, vote-lead:3, beta-confident:0.95, unanimous:4. Given more than "
        "once, any of them stops.",
        rich_help_panel=_SEARCH,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Another setting of the strategy.", rich_help_panel=_SEARCH),
]
VerifierName = Annotated[
    str | None,
    typer.Option(
        metavar="VERIFIER",
        help="rubric:TEXT (a judge), grounded, tool-call, sql:FILE, json-schema:FILE, code-tests:FILE.py, math, "
        "regex:PATTERN, similar:TEXT, agreement, FILE.npz of train-verifier, python:package.module:function or "
        "python:path/file.py:function; for a pool recorded, or recorded:min. The function gets (problem, candidate) "
        "and returns a score from 0 to 1, or a score and a reason.",
        rich_help_panel=_SEARCH,
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The model of a verifier that asks one: a server's, a .gguf, or embedding:NAME for vectors; the generator "
        "itself where left out.",
        rich_help_panel=_SEARCH,
    ),
]
JudgeBaseUrl = Annotated[str | None, typer.Option(metavar="URL", help="Its server's address.", rich_help_panel=_SEARCH)]
JudgeApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The environment variable with its key.", rich_help_panel=_SEARCH),
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same requests.", rich_help_panel=_SEARCH)]
Attempts = Annotated[int, typer.Option(help="Attempts at one request at most.", rich_help_panel=_SEARCH)]

BudgetCalls = Annotated[int | None, typer.Option(help="Generations at most.", rich_help_panel=_BUDGET)]
BudgetTokens = Annotated[
    int | None, typer.Option(help="Prompt and completion tokens at most.", rich_help_panel=_BUDGET)
]
BudgetUsd = Annotated[float | None, typer.Option(help="Dollars at most.", rich_help_panel=_BUDGET)]
BudgetSeconds = Annotated[float | None, typer.Option(help="Seconds at most.", rich_help_panel=_BUDGET)]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it may cost; send and start nothing.", rich_help_panel=_OUTPUT)
]
Tree = Annotated[bool, typer.Option("--trace", help="Print every call as a tree.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no summary on stderr.", rich_help_panel=_OUTPUT)
]

# Of `bench`, `record` and `report`

Limit = Annotated[
    int | None, typer.Option(help="The first so many problems only.", rich_help_panel=_TASK, metavar="N", min=1)
]
GradeName = Annotated[
    str | None,
    typer.Option(
        "--grade",
        metavar="GRADE",
        help="What is right: answer (as the problem's gold answer; the default), recorded (a pool's records; the "
        "default on one), or python:path/file.py:function of (problem, candidate) that returns true or false. For "
        "measuring only.",
        rich_help_panel=_TASK,
    ),
]
Concurrency = Annotated[int, typer.Option(help="Problems under way at once.", rich_help_panel=_SEARCH, min=1)]
Params = Annotated[
    float | None,
    typer.Option(help="Parameters of the model, such as 1.35e8: gives FLOPs.", rich_help_panel=_OUTPUT, metavar="N"),
]
VerifierParams = Annotated[
    float | None,
    typer.Option(help="Parameters of the verifier, if it is a model.", rich_help_panel=_OUTPUT, metavar="N"),
]
LargerFile = Annotated[
    Path | None,
    typer.Option(
        "--larger",
        help="A pool or a run of a larger model on the same problems, to compare its single answer with at matched "
        "FLOPs; needs --params and --larger-params.",
        rich_help_panel=_OUTPUT,
        metavar="FILE",
    ),
]
LargerParams = Annotated[
    float | None, typer.Option(help="Parameters of the larger model.", rich_help_panel=_OUTPUT, metavar="N")
]
