"""The documentation site: `sphinx-build -W docs build/site`, with the extra `docs`."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = [str(ROOT), str(ROOT / "integrations")]
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*FOLDERS, os.environ.get("PYTHONPATH")]))  # for notebooks

from tts_plugins import __version__  # noqa: E402  (found on the path that is set above)

project = "tts-plugins"
author = "the tts-plugins authors"
copyright = f"{author}, Apache-2.0"
release = version = __version__

extensions = [
    "myst_nb",  # MyST's pages, and notebooks that run while the site is built
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_llms_txt",
]
exclude_patterns = ["README.md"]
default_role = "code"  # docstrings put code between single backticks

# --- pages -----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a notebook that fails, fails the site
nb_execution_raise_on_error = True
nb_execution_timeout = 600
suppress_warnings = [
    "myst.header",  # a changelog starts at the second level
    "ref.python",  # types in signatures are shown by their short names, of which there may be two
]

# --- reference -------------------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses, which autodoc lists too

# --- appearance ------------------------------------------------------------------------------------------------------

html_theme = "furo"
pygments_dark_style = "github-dark"  # Furo's own underlines names as if they were links
html_title = f"tts-plugins {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = True  # what llms-full.txt is made of
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"

llms_txt_summary = (
    "tts-plugins (import tts_plugins) spends inference compute where it pays: Best-of-N, search guided by a process "
    "verifier, and revision around LangChain, DSPy, LangGraph or OpenAI clients, under a hard budget."
)

# Pages of the repository that are shown on the site too: they link to files of the repository, the site to its pages.
_SHOWN = {
    "CONTRIBUTING.md": "/project/contributing.md",
    "SECURITY.md": "/project/security.md",
    "CHANGELOG.md": "/project/changelog.md",
    "benchmarks/README.md": "/project/benchmarks.md",
}


def _link_to_pages(app, document, content):
    """Let links to files of the repository lead to the pages that show them."""
    text = content[0]
    for file, page in _SHOWN.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}", f"]({page}", text)
    content[0] = text


def _include(app, relative, parent, content):
    _link_to_pages(app, "", content)
    content[0] = re.sub(r"\]\((?:\.\./)?docs/", "](/", content[0])


def setup(app):
    app.connect("source-read", _link_to_pages)
    app.connect("include-read", _include)
