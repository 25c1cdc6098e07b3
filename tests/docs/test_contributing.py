"""The guide for contributors is enough: what it shows is a package of its own that passes the contract tests."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n# (?P<file>\w+\.py)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ENTRY_POINTS = re.compile(
    r'^\[project\.entry-points\."(?P<group>[\w.]+)"\]\n(?P<lines>(?:\w+ = ".*"\n)+)', re.MULTILINE
)


def package(folder: Path) -> set[str]:
    """Write what the guide shows, with the metadata that an installer would write from its entry points."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        (folder / block["file"]).write_text(block["code"], encoding="utf-8")
    info = folder / "parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n")
    points = [f"[{found['group']}]\n{found['lines'].replace(chr(34), '')}" for found in ENTRY_POINTS.finditer(text)]
    (info / "entry_points.txt").write_text("\n".join(points))
    return {block["file"] for block in BLOCK.finditer(text)}


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
        env={"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_parts_pass_the_contract_tests(tmp_path: Path) -> None:
    assert {"halving.py", "short_answers.py", "echo.py", "test_parts.py"} <= package(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    said = run(tmp_path, "-m", "pytest", "-q", "test_parts.py", "-p", "no:cacheprovider", "-p", "no:asyncio")
    assert re.search(r"\d\d passed", said) and "failed" not in said


def test_its_parts_work_together_and_by_name(tmp_path: Path) -> None:
    package(tmp_path)
    code = """
    from echo import Echo
    from short_answers import ShortAnswers
    from tts_plugins import solve_sync
    from tts_plugins.strategies import BaseStrategy

    strategy = BaseStrategy.from_dict({"type": "halving", "few": 2})
    result = solve_sync("What colour is the sky?", model=Echo(), strategy=strategy, verifier=ShortAnswers(20), seed=0)
    assert result.text == "What colour is the sky?" and result.usage.calls == 4, result
    print("worked")
    """
    assert run(tmp_path, "-c", textwrap.dedent(code)).strip() == "worked"


def test_its_adapter_works(tmp_path: Path) -> None:
    package(tmp_path)
    code = """
    from adapter import scale
    from tts_plugins import BestOfN

    scaled = scale(str.upper, strategy=BestOfN(n=3), verifier=lambda text: len(text) > 2)
    assert scaled("sky") == "SKY"
    print("worked")
    """
    assert run(tmp_path, "-c", textwrap.dedent(code)).strip() == "worked"


def test_each_guide_is_about_a_dozen_lines() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lengths = {block["file"]: len(block["code"].strip().splitlines()) for block in BLOCK.finditer(text)}
    assert all(length <= 24 for length in lengths.values()), lengths
