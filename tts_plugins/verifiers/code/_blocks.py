"""Which of the blocks in a reply are its program. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from tts_plugins.answers import without_thoughts

_FENCE = re.compile(
    r"^(?P<blank>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+#-]*)[^\n]*\n(?P<body>.*?)"
    r"(?:^[ \t]*(?P=mark)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = {"python", "python3", "py", "py3", "ipython", "ipython3"}
_MAGIC = re.compile(r"^[ \t]*[%!][^\n]*$", re.MULTILINE)
_SESSION = re.compile(r"^[ \t]*(?:>>> |\$ |In \[\d*\]:|C:\\|# ?pip )", re.MULTILINE)


def fenced(text: str) -> str:
    """The program in a text: its blocks of Python that belong together; all of the text where it has no block.

    Left out are thoughts, sessions of a shell or an interpreter, what is not Python where something else is, drafts of
    what a later block defines again, and examples of use.
    """
    text = without_thoughts(text.replace("\r\n", "\n"))
    blocks = [(m["language"].lower(), _body(m)) for m in _FENCE.finditer(text)]
    if not blocks:
        return text
    found = [body for language, body in blocks if language in _PYTHON or (not language and tree_of(body) is not None)]
    found = found or [body for language, body in blocks if not language]
    found = [body for body in found if body.strip() and not _SESSION.match(body.lstrip("\n"))]
    return "\n\n".join(_together(found))


def _body(match: re.Match[str]) -> str:
    """A block's code, without the blanks by which its fence is indented, as in a list."""
    body = match["body"]
    if match["blank"]:
        body = re.sub(rf"^[ \t]{{1,{len(match['blank'])}}}", "", body, flags=re.MULTILINE)
    return _MAGIC.sub("", body) if match["language"].lower().startswith("ipython") else body


def _together(blocks: Sequence[str]) -> list[str]:
    trees = [tree_of(body) for body in blocks]
    if all(tree is None for tree in trees):
        return list(blocks)
    parsed = [(body, tree) for body, tree in zip(blocks, trees, strict=True) if tree is not None]
    if any(_defines(tree) for _, tree in parsed):
        parsed = [(body, tree) for body, tree in parsed if _defines(tree) or _binds(tree)]
    kept, later = list[str](), set[str]()
    for body, tree in reversed(parsed):
        own = _defines(tree)
        if own and own <= later:
            continue  # a draft
        later |= own
        kept.insert(0, body)
    return kept


def _defines(tree: ast.Module) -> set[str]:
    return {s.name for s in tree.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


def _binds(tree: ast.Module) -> bool:
    """Whether all that it does is to give names to things that others may use: imports and constants."""
    return bool(tree.body) and all(
        isinstance(s, ast.Import | ast.ImportFrom)
        or (isinstance(s, ast.Assign | ast.AnnAssign) and not any(isinstance(n, ast.Call) for n in ast.walk(s)))
        for s in tree.body
    )


def tree_of(source: str) -> ast.Module | None:
    """Return the tree of a source; None where it is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
