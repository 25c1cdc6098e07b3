"""The supported versions of what the integrations build on, at their ends: `python -m tests.ranges lowest|openai3`.

    lowest   every dependency at the lower bound that pyproject.toml states
    openai3  the newest openai of those supported, which dspy's dependencies keep out of the common environment

Each end has a virtual environment of its own, `.venv-lowest` or `.venv-openai3` in the root of the repository, which is
made where it is missing and brought up to date where it is there; then the tests of the integrations run in it. The
exit status is that of the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/integrations/test_langchain_*.py", "tests/integrations/test_openai_*.py",
         "tests/integrations/test_steps.py")  # fmt: skip
DSPY = ("tests/integrations/test_dspy_*.py",)
_BOUND = re.compile(r"^(?P<name>[A-Za-z0-9-]+)\s*(?P<bounds>[^;]*)$")


def stated(*extras: str) -> dict[str, str]:
    """What pyproject.toml asks for, by name: the dependencies, and those of some extras; without the project's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = {}
    for line in lines:
        match = _BOUND.match(line)
        if match is not None and not line.startswith("tts-plugins["):
            found[match["name"]] = match["bounds"].strip()
    return found


def lowest(bounds: str) -> str:
    """The lower bound as a pin.

    Raises:
        ValueError: there is none.
    """
    match = re.search(r">=\s*([\w.]+)", bounds)
    if match is None:
        raise ValueError(f"{bounds!r} has no lower bound; state one in pyproject.toml")
    return f"=={match[1]}"


def requirements(end: str) -> tuple[list[str], tuple[str, ...]]:
    """What is installed for an end, and which tests run."""
    own, dev = stated(), stated("testing", "dev")
    helpers = {"langchain-tests", *stated("testing")} - set(own)
    tools = [f"{name}{dev[name]}" for name in sorted(helpers)]
    partners = {"langchain-openai": dev["langchain-openai"]}
    if end == "lowest":
        wanted = {**stated("langchain", "dspy"), **partners}
        return [*tools, *(f"{name}{lowest(bounds)}" for name, bounds in wanted.items())], (*TESTS, *DSPY)
    wanted = {**stated("langchain"), **partners, "openai": ">=3,<4"}
    return [*tools, *(f"{name}{bounds}" for name, bounds in wanted.items())], TESTS


def run(end: str, arguments: Sequence[str]) -> int:
    """Make the environment of an end, and run the tests in it."""
    place = ROOT / f".venv-{end}"
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    wanted, tests = requirements(end)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "integrations")))
    files = sorted(str(file.relative_to(ROOT)) for pattern in tests for file in ROOT.glob(pattern))
    command = [python, "-m", "pytest", *files, *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.ranges", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("end", choices=("lowest", "openai3"))
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    given = parser.parse_args()
    return run(given.end, given.pytest)


if __name__ == "__main__":
    sys.exit(main())
