"""The command line; it needs the extra `cli` (typer and rich).

`tts-plugins demo | solve | record | bench | report | calibrate | rollouts | train-verifier | doctor`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    0: done, with an answer; 1: an error; 2: a wrong option or setting; 3: the budget or the time ended before there
    was any answer; 130: interrupted before there was any answer.
    """
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"tts-plugins: the command line needs {' and '.join(missing)}: pip install 'tts-plugins[cli]'\n"
        )
        return 1
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")  # a terminal that cannot show a sign of a model's text shows a "?"
    from tts_plugins.cli._app import run

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:
        # Who read our output has gone (`| head`); what is still buffered goes nowhere, else Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
