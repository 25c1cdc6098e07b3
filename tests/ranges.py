"""Run the integrations' tests at the ends of the supported ranges: `python -m tests.ranges END [--venvs DIR]`.

    lowest      every dependency at the lower bound that pyproject.toml states, but for openai
    openai1     openai at its lower bound, which is below what LangChain's packages ask for
    openai3     the newest supported openai, which dspy's dependencies keep out of the common environment
    dspy-X.Y.Z  a release of dspy, with the dependencies of its time; `dspy` runs all of them, one after the other

Each end has a virtual environment of its own (`.venv-END` in the root of the repository, or `dspy-X.Y.Z` and so on
under DIR), which is created where it is missing and updated where it exists. The exit status is that of the tests.
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
CLIENT = TESTS[1:]
DSPY = ("tests/integrations/test_dspy_*.py",)
DSPY_RELEASES = {
    "3.0.0": "2025-09-01",
    "3.0.4": "2025-11-30",
    "3.1.0": "2026-01-25",
    "3.1.3": "2026-02-25",
    "3.2.0": "2026-05-04",
    "3.2.1": "2026-05-25",
    "3.3.0": "2026-08-20",
    "3.3.1": "2026-09-10",
    "3.4.0": "2026-10-10",
    "3.4.1": "2026-11-20",
}
"""The lowest and the highest release of each minor version of dspy, and the day on which its users installed it:
nothing that was uploaded later is installed beside it."""
ENDS = ("lowest", "openai1", "openai3", "dspy", *(f"dspy-{release}" for release in DSPY_RELEASES))
RELEASES = tuple(end for end in ENDS if end.startswith("dspy-"))
_BOUND = re.compile(r"^(?P<name>[A-Za-z0-9-]+)\s*(?P<bounds>[^;]*)$")


def stated(*extras: str) -> dict[str, str]:
    """Return the bounds that pyproject.toml states, by name: the dependencies and some extras, without our own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = {}
    for line in lines:
        match = _BOUND.match(line)
        if match is not None and not line.startswith("tts-plugins["):
            found[match["name"]] = match["bounds"].strip()
    return found


def lowest(bounds: str) -> str:
    """Return the lower bound as a pin.

    Raises:
        ValueError: there is none.
    """
    match = re.search(r">=\s*([\w.]+)", bounds)
    if match is None:
        raise ValueError(f"{bounds!r} has no lower bound; state one in pyproject.toml")
    return f"=={match[1]}"


def requirements(end: str) -> tuple[list[str], tuple[str, ...]]:
    """Return what is installed for an end, and which tests run there."""
    own, dev = stated(), stated("testing", "dev")
    tools = [f"{name}{dev[name]}" for name in sorted(set(stated("testing")) - set(own))]
    if end.startswith("dspy-"):
        beside = [f"{name}{bounds}" for name, bounds in own.items()]
        return [*tools, "optuna", *beside, f"dspy=={end.removeprefix('dspy-')}"], DSPY
    if end == "openai1":
        return [*tools, *(f"{n}{lowest(b) if n == 'openai' else b}" for n, b in own.items())], CLIENT
    tools.append(f"langchain-tests{dev['langchain-tests']}")
    partners = {"langchain-openai": dev["langchain-openai"]}
    if end == "lowest":
        wanted = {**stated("langchain", "dspy"), **partners}
        wanted.pop("openai")  # langchain-openai asks for a newer one
        return [*tools, *(f"{name}{lowest(bounds)}" for name, bounds in wanted.items())], (*TESTS, *DSPY)
    wanted = {**stated("langchain"), **partners, "openai": ">=3,<4"}
    return [*tools, *(f"{name}{bounds}" for name, bounds in wanted.items())], TESTS


def install(end: str, venvs: Path | None) -> Path:
    """Create or update the environment of an end, and return its Python."""
    place = ROOT / f".venv-{end}" if venvs is None else venvs / end
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    wanted, _ = requirements(end)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=26"], check=True)  # for the next flag
    until = DSPY_RELEASES.get(end.removeprefix("dspy-"))
    dated = [] if until is None else ["--uploaded-prior-to", until]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *dated, *wanted], check=True)
    return python


def run(end: str, arguments: Sequence[str], *, venvs: Path | None = None) -> int:
    """Run the tests of an end in its environment."""
    python = install(end, venvs)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "integrations")))
    files = sorted(str(file.relative_to(ROOT)) for pattern in requirements(end)[1] for file in ROOT.glob(pattern))
    # The warnings of older releases are not ours to fix, and turned into errors they break LiteLLM's logging.
    quiet = ["-o", "filterwarnings="] if end == "lowest" or end.startswith("dspy-") else []
    command = [python, "-m", "pytest", *quiet, *files, *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.ranges", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("end", choices=ENDS, metavar="END", help=f"one of {', '.join(ENDS)}")
    parser.add_argument("--venvs", type=Path, help="the folder of the environments")
    parser.add_argument("--install", action="store_true", help="prepare the environment, and run no test")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENT", help="further arguments of pytest")
    own, passed = sys.argv[1:], list[str]()
    if "--" in own:  # argparse takes nothing for `pytest` after an option
        place = own.index("--")
        own, passed = own[:place], own[place + 1 :]
    given = parser.parse_args(own)
    worst = 0
    for end in RELEASES if given.end == "dspy" else (given.end,):
        if given.install:
            install(end, given.venvs)
            continue
        code = run(end, [*given.pytest, *passed], venvs=given.venvs)
        print(f"{end}: {'passed' if code == 0 else f'exit status {code}'}", flush=True)
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
