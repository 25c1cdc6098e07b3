"""Every Python block of the README and the docs runs, in order, in one namespace a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = re.compile(r"<!-- needs: (\w+) -->")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*is in beta")  # LangChain's, of its own `loads`
@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != "CONTRIBUTING.md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_blocks_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text(encoding="utf-8")
    for module_name in NEEDS.findall(text):
        pytest.importorskip(module_name)
    # A real module: dataclasses look theirs up by name.
    module = ModuleType(f"docs_{path.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for match in BLOCK.finditer(text):
        line = text[: match.start(1)].count("\n")
        code = compile("\n" * line + match[1], str(path), "exec")  # tracebacks point into the document
        exec(code, module.__dict__)


def test_links_lead_somewhere() -> None:
    for path in FILES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
