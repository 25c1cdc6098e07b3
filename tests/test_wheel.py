"""What a release holds: every module and file that the package reads, and nothing of the repository besides."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "tts_plugins": ROOT / "tts_plugins",
    **{
        name: ROOT / "integrations" / name
        for name in ("tts_plugins_dspy", "tts_plugins_langchain", "tts_plugins_openai")
    },
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(made), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    (file,) = made.glob("*.whl")
    return zipfile.ZipFile(file)


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    expected = {
        f"{name}/{path.relative_to(folder)}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - set(wheel.namelist()) == set()


def test_nothing_else_is(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in wheel.namelist() if name.endswith((".gguf", ".sqlite", ".pyc"))]
    assert sum(file.compress_size for file in wheel.infolist()) < 1_500_000  # it is code; weights are fetched


def test_the_page_of_an_index_has_no_link_that_leads_nowhere(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    text = metadata.get_payload()
    assert isinstance(text, str) and "# tts-plugins" in text
    assert re.findall(r"\]\((?!https?:)[^)]+\)", text) == []
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    assert not metadata.get_all("Project-URL")  # none is known yet, and none is invented


def test_the_commands_and_plugins_are_declared(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    said = wheel.read(name).decode()
    assert "tts-plugins = tts_plugins.cli:main" in said and "learned_stopping" in said
