"""The site is built from the repository by one command, and what its pages promise to readers is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("sphinx", "myst_nb", "dspy", "langchain_openai", "xllamacpp"):  # its notebooks run on these
        pytest.importorskip(needed)
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(made / "trees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(made / "html")], capture_output=True, text=True, timeout=900, check=False
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return made / "html"


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text("utf-8")
    pages = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")}
    assert not {str(p) for p in pages if str(p) != "index.html" and f'href="{p}"' not in first}


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    pages = {page: page.read_text("utf-8") for page in site.rglob("*.html") if "_modules" not in page.parts}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    broken = set()
    for page, text in pages.items():
        for link in re.findall(r'href="(?!https?:|mailto:|data:)([^"]+)"', text):
            target, _, anchor = link.partition("#")
            file = (page.parent / target.partition("?")[0]).resolve() if target else page
            if not file.exists() or (anchor and anchor not in anchors.get(file, {anchor})):
                broken.add(f"{page.relative_to(site)} links to {link}")
    assert not broken, "\n".join(sorted(broken)[:20])


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    sources = r'(?:<script[^>]+src|<link[^>]+rel="stylesheet"[^>]+href|<img[^>]+src)="(https?://[^"]+)"'
    assert not {u for page in site.rglob("*.html") for u in re.findall(sources, page.read_text("utf-8"))}


@pytest.mark.parametrize("name", ["dspy", "langchain", "openai"])
def test_notebooks_ran_and_show_their_traces(site: Path, name: str) -> None:
    page = (site / "notebooks" / f"{name}.html").read_text("utf-8")
    assert page.count('class="tts-trace"') == 1 and "chosen" in page
    assert "Traceback" not in page and "WARNING" not in page


def test_it_speaks_to_models_too(site: Path) -> None:
    assert "](/_sources/budgets.md.txt)" in (site / "llms.txt").read_text("utf-8")
    assert "# Budgets" in (site / "llms-full.txt").read_text("utf-8")
