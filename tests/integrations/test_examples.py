"""The examples run on a loopback server with what their install line brings and nothing else, and are short."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("packaging")
pytest.importorskip("aiohttp")

from packaging.requirements import Requirement

from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import sandbox_kind

ROOT = Path(__file__).parents[2]
EXAMPLES = {p.stem: p for p in sorted((ROOT / "examples").glob("*.py")) if 'if __name__ == "__main__"' in p.read_text()}
INSTALL = re.compile(r"^ *pip install (.+)$", re.MULTILINE)
LOCAL = {"LocalModel", "LocalEmbeddingModel"}  # with these an example needs the engine, which a server's address hides

# Runs an example where no module of another distribution can be imported.
CONFINED = """
import importlib.machinery, importlib.metadata, json, runpy, sys
allowed, example = set(json.loads(sys.argv[1])), sys.argv[2]
owners = importlib.metadata.packages_distributions()
canonical = lambda name: name.lower().replace("_", "-").replace(".", "-")
class Confined(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        of = {canonical(owner) for owner in owners.get(name, ())}
        return None if of and not of & allowed else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Confined
sys.argv = sys.argv[2:]
runpy.run_path(example, run_name="__main__")
"""


def installed_by(line: str) -> set[str]:
    """Return the names of the distributions that `pip install line` brings, as far as they are installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    todo = [Requirement(word.strip("'")) for word in line.split()]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name.lower())
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "tts-plugins":
                texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
            else:
                texts = requires(name)
            needed = (Requirement(text) for text in texts)
            todo += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another platform or Python
        return []


def line_of(name: str) -> str:
    found = INSTALL.search(ast.get_docstring(ast.parse(EXAMPLES[name].read_text("utf-8")), clean=False) or "")
    assert found, f"{name}: no line 'pip install …' in its docstring"
    return found[1]


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT), str(ROOT / "integrations")])}
    allowed = json.dumps(sorted(installed_by(line_of(name)) | {"pip", "setuptools"}))
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, allowed, str(EXAMPLES[name]), *arguments],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what the server says, and what has to be printed then -----------------------------------------------------------

# The server numbers a judge's requests too, which come in between: what a generator says is counted here.
PROPOSALS, ANSWERS = itertools.count(), itertools.count()

Speak = Callable[[dict[str, Any], int], str | Reply]


def in_turn(*replies: str) -> Speak:
    return lambda body, index: replies[index % len(replies)]


def asked(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def key_of(body: dict[str, Any]) -> str:
    return re.findall(r'"key": "(\w+)"', asked(body))[-1]


def cafe(body: dict[str, Any], index: int) -> str | Reply:
    """An agent that proposes a tool that does not exist, the wrong one and the right one; and its judge."""
    if not body.get("tools"):
        blocks = re.findall(r"<<<(\w+).*?>>>\n(.*?)\n<<<END", asked(body), re.DOTALL)
        mark = 5 if "price_of" in blocks[-1][1] else 1
        return json.dumps({"key": key_of(body), "critique": "", "criteria": {"rubric": mark}, "score": mark})
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"It costs {last['content']} euros."
    calls = [("menu", {}), ("opening_hours", {"day": "Monday"}), ("price_of", {"item": "coffee"})]
    name, arguments = calls[next(PROPOSALS) % 3]
    return Reply(None, tool_calls=[{"name": name, "arguments": arguments}])


def retrieved(body: dict[str, Any], index: int) -> str:
    """A generator that invents something each second time, and a judge that looks each sentence up."""
    if "<<<" not in asked(body):
        return ["It took three years to build. The king came.", "It took three years to build."][next(ANSWERS) % 2]
    context, answer = re.findall(r"<<<(?:CONTEXT|ANSWER).*?>>>\n(.*?)\n<<<END", asked(body), re.DOTALL)[-2:]
    said = [text.strip(" |") for text in answer.split(".") if text.strip(" |")]
    return json.dumps({"key": key_of(body), "claims": [{"claim": c, "supported": c in context} for c in said]})


def sums(body: dict[str, Any], index: int) -> str:
    known = {"marbles": 13, "bags": 15, "cups": 12}
    return f"The answer is {next(number for word, number in known.items() if word in asked(body))}."


def desks(body: dict[str, Any], index: int) -> str:
    if "nicer" in asked(body):
        return ["billing", "delivery", "returns"][index % 3]
    return "billing" if "card" in asked(body) else "delivery"


def capitals(body: dict[str, Any], index: int) -> str:
    if "France" in asked(body):
        return "The answer is Paris."
    return "The answer is Ouagadougou." if body["model"] == "qwen3-8b" else f"The answer is Town {index}."


ORDER = '{"name": "Marta Lindqvist", "item": "desk lamps", "quantity": 4}'
INVOICE = '{"seller": "Kestrel Ltd", "count": 3, "each": 20, "total": 60}'
VOWELS = "```python\ndef count_vowels(text):\n    return sum(c in '{}' for c in text)\n```"
LAMPS = "select sum({}) from orders where item = 'lamp'"

RUNS: dict[str, tuple[Speak, list[str]]] = {
    "classification_with_abstention": (
        desks,
        ["twice. -> billing", "parcel? -> delivery", "blue. -> a person: the confidence is"],
    ),
    "code_with_tests": (
        in_turn(VOWELS.format("aeiou"), VOWELS.format("aeiouAEIOU")),
        ["passes every test", "score 1.00", "stop_rule"],
    ),
    "dspy_program": (in_turn("A bridge.", "Ghent opens it", "Ghent opens a bridge"), ["opens a bridge 1.00 stop_rule"]),
    "escalation": (capitals, ["Paris (100% of the votes, 6 calls)", "Ouagadougou (escalated, 7 calls)"]),
    "extraction_at_the_edge": (
        in_turn(ORDER.replace("4}", '4, "reference": "QL-2210"}'), ORDER.replace("4", "9"), ORDER),
        [ORDER, "score 1.00", "stop_rule"],
    ),
    "langchain_chain": (in_turn("A bird", '"Kestrel: more"', "Kestrel sees more"), ["score 1.00", "stop_rule"]),
    "maths_with_votes": (sums, ["3 of 3 right", "stop_rule"]),
    "openai_client": (in_turn("Kestrel", '{"seller": "Kestrel Ltd"}', INVOICE), [INVOICE, "1.00 stop_rule"]),
    "rag_grounded": (retrieved, ["0.50", "The king came", "answer: It took three years to build. (score 1.00)"]),
    "text_to_sql": (
        in_turn(LAMPS.format("amount"), LAMPS.format("quantity")),
        ["no such column: amount", f"query: {LAMPS.format('quantity')} (score 1"],
    ),
    "tool_agent": (cafe, ["It costs 4 euros.", "one of 3 candidates"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_with_its_install_line_alone(name: str) -> None:
    for module in imports(name):
        pytest.importorskip(module)
    if name == "code_with_tests" and not sandbox_kind():
        pytest.skip("no sandbox here")
    speak, printed = RUNS[name]
    with LoopbackServer(reply=speak, indexing="arrival") as server:
        said = run(name, "--base-url", server.base_url)
    assert [text for text in printed if text not in said] == [], said


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short_and_its_install_line_brings_the_engine(name: str) -> None:
    text = EXAMPLES[name].read_text("utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{name}.py" in text
    if LOCAL & {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}:
        assert "xllamacpp" in installed_by(line_of(name))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_of_examples_has_it(name: str) -> None:
    page = (ROOT / "docs" / "examples.md").read_text("utf-8")
    assert f"examples/{name}.py" in page and f"pip install {line_of(name)}" in page


def test_an_import_from_elsewhere_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai")
    assert "langchain-openai" not in installed_by("'tts-plugins[langchain,local]'")
    example = tmp_path / "example.py"
    example.write_text("import langchain_openai\n")
    command = [sys.executable, "-c", CONFINED, json.dumps(sorted(installed_by("'tts-plugins[langchain,local]'")))]
    done = subprocess.run([*command, str(example)], capture_output=True, text=True, timeout=300, check=False)
    assert "No module named 'langchain_openai'" in done.stderr


@pytest.mark.engine
@pytest.mark.parametrize("name", ["escalation", "openai_client"])
def test_on_the_embedded_model(name: str) -> None:
    pytest.importorskip("xllamacpp")
    assert run(name, "-n", "2").strip()


def imports(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(EXAMPLES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
