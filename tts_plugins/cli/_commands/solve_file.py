"""`tts-plugins solve --problems`: many problems, and one JSON object for each on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from tts_plugins._trace.wording import oneline
from tts_plugins.bench.problems import read_problems
from tts_plugins.cli._display.console import Download, no_key_echo, start_local
from tts_plugins.cli._display.error_messages import code_of, words_of
from tts_plugins.engine import solve_stream
from tts_plugins.errors import TTSError
from tts_plugins.models import EmbeddingModel, OpenAICompatibleModel
from tts_plugins.options import SolveOptions
from tts_plugins.types import Problem, Result


def solve_file(
    source: str,
    asked: SolveOptions,
    models: Sequence[OpenAICompatibleModel | EmbeddingModel],
    concurrency: int,
    download: Download,
) -> int:
    """Solve the problems of a source; return the exit code: that of the first that failed, if one did.

    Raises:
        ConfigurationError, DataError: the problems cannot be read.
    """
    problems = read_problems(source).problems
    start_local(download, *models)
    return asyncio.run(_run(problems, asked, models, concurrency))


async def _run(
    problems: Sequence[Problem],
    asked: SolveOptions,
    models: Sequence[OpenAICompatibleModel | EmbeddingModel],
    concurrency: int,
) -> int:
    code = 0
    try:
        with no_key_echo():
            async for number, outcome in solve_stream(problems, concurrency=concurrency, return_errors=True, **asked):
                code = code or (code_of(outcome) if isinstance(outcome, TTSError) else 8 if outcome.abstained else 0)
                line = {"id": problems[number].id, **_said(outcome)}
                sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
                sys.stdout.flush()
    finally:
        for model in models:
            await model.aclose()
    return code


def _said(outcome: Result | TTSError) -> dict[str, Any]:
    if isinstance(outcome, Result):
        return outcome.to_dict()
    said = {"type": type(outcome).__name__, "message": oneline(words_of(outcome)), "exit_code": code_of(outcome)}
    return {"error": said}
