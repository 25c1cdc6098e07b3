r"""Formulas in LaTeX, or typed by hand, on one line and in one form: `\dfrac{x+2}{7}` is `(x+2)/7`. Pure.

What a command means is kept where it is known, and the command itself where it is not, so that different formulas stay
different. Nothing is computed.
"""

from __future__ import annotations

import re

from tts_plugins.answers._symbols import DROPPED, FUNCTIONS, SYMBOLS, TEXT, TYPED

_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac", "flatfrac"}
_MATRICES = {"matrix", "pmatrix", "bmatrix", "smallmatrix", "array", "psmallmatrix", "bsmallmatrix"}
_TOKEN = re.compile(r"\\(?:[a-zA-Z]+\*?|.)|.", re.DOTALL)
_ATOM = re.compile(r"-?\d+(?:\.\d+)?|-?[^\W\d_]'*|-?\d*[^\W\d_](?:_(?:\w|\{\w+\}))?|√\([^()]*\)")
_SIMPLE_POWER = re.compile(r"-?\d+|[^\W\d_]|[°'*+(-]")
_DEEP = 60
MOST = 2000  # tokens; longer texts are compared as they stand


class TooDeep(ValueError):
    """The formula has more levels, or more parts, than any answer has."""


def linear(text: str) -> str:
    r"""A formula on one line.

    >>> linear(r"2\frac{1}{3}"), linear(r"\frac{x+2}{7}"), linear(r"\sqrt3"), linear(r"x^{2y}")
    ('2 1/3', '(x+2)/7', '√(3)', 'x^(2y)')

    Raises:
        TooDeep: it is nested more deeply than any answer is.
    """
    text = re.sub(r",\\!\s+(?=\d{3}(?!\d))", r",\\!", text)
    text = re.sub(r"(?<=\d)(?:\{,\}|,\\!|\\!,|\\!,\\!|\\,)(?=\d{3}(?!\d))", "\x00", text).translate(TYPED)
    text = re.sub(r"(?<=\d)\\!(?=\d)", "", text)
    tokens = [match[0] for match in _TOKEN.finditer(text)]
    if len(tokens) > MOST:
        raise TooDeep(f"{len(tokens)} parts")
    reader = _Reader(tokens)
    made = reader.until(None)
    made = re.sub(r"√(?!\()\s*(\d+|[^\W\d_])", r"√(\1)", re.sub(r"\bsqrt\s*(?=\()", "√", made))
    made = re.sub(r"[\[(](\[\[[^\x00]*\]\])[\])]", r"\1", made)  # an array in brackets of its own is a matrix
    return re.sub(r"\s*°\s*([CF])\b", r"°\1", made).replace("\x00", "")


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def until(self, end: str | None) -> str:
        """Take everything up to the token `end`, and that token; all the rest if it does not occur."""
        self.depth += 1
        if self.depth > _DEEP:
            raise TooDeep(f"{self.depth} levels")
        out: list[str] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            if token == end:
                break
            self._one(token, out)
        self.depth -= 1
        return "".join(out)

    def _one(self, token: str, out: list[str]) -> None:
        if token == "{":
            inner = self.until("}")
            compound = self._next() in ("^", "_") and len(inner) > 1
            out.append(f"({inner})" if compound else inner)
        elif token == "}":
            return
        elif token == "^":
            out.append(self._raised("^"))
        elif token == "_":
            out.append(self._raised("_"))
        elif token == "$":
            return
        elif len(token) == 1:
            out.append(token)
        elif token[1].isalpha():
            self._command(token[1:].rstrip("*"), out)
        else:
            out.append(
                {"%": "%", "$": "$", "&": "&", "#": "#", "_": "_", "{": r"\{", "}": r"\}", "|": "‖", "\\": ";"}.get(
                    token[1], "" if token[1] in "!/()[]" else " "
                )
            )

    def _command(self, name: str, out: list[str]) -> None:
        if name in _FRACTIONS:
            out.append(self._fraction(out))
        elif name == "sqrt":
            root = self._optional()
            inner = self.group()
            out.append(f"√({inner})" if root in ("", "2") else rf"\sqrt[{root}]{{{inner}}}")
        elif name in TEXT:
            self._optional()
            inner = self.group()
            out.append(f" {inner} " if len(inner.strip()) > 1 or not inner.strip() else inner.strip())
        elif name in SYMBOLS:
            out.append(SYMBOLS[name])
            while self._next() in (" ", "\n", "\t"):  # it ends the command's name
                self.at += 1
        elif name in FUNCTIONS:
            out.append(name)
            if self._next() not in ("^", "_", "(", "{", None) and not str(self._next()).isspace():
                out.append(" ")
        elif name in DROPPED:
            if name in ("left", "right", "middle") and self._next() == ".":
                self.at += 1
            elif name in ("hspace", "vspace"):
                self.group()
        elif name in ("begin", "end"):
            self._environment(name, out)
        elif name in ("pmod",):
            out.append(f" (mod {self.group()})")
        elif name in ("tag", "label") or name in ("textcolor", "color"):
            self.group()
        else:
            self._unknown(name, out)

    def _unknown(self, name: str, out: list[str]) -> None:
        """Kept as it is, with its arguments in braces."""
        while self._next() == " ":
            self.at += 1
        groups = []
        while self._next() == "{":
            self.at += 1
            groups.append(self.until("}"))
        if not groups and name in ("overline", "bar", "vec", "hat", "tilde", "mathbb", "mathcal", "dot"):
            groups.append(self.group())
        after = self._next() or ""
        gap = " " if not groups and after.isalpha() else ""
        out.append(f"\\{name}" + "".join(f"{{{g}}}" for g in groups) + gap)

    def _fraction(self, out: list[str]) -> str:
        over, under = _wrapped(self.group().strip()), _wrapped(self.group().strip())
        if re.match(r"-?\d+[^\W\d_]|-", under):
            under = f"({under})"  # 1/(2x) is not 1/2x
        before = next((part for part in reversed("".join(out[-3:]))), "")
        made = f"{over}/{under}"
        if before.isdigit() and over.isdigit() and under.isdigit():
            return f" {made}"  # a mixed number
        if (before and (before in "/^" or before.isalnum() or before in ")}")) or self._next() == "^":
            return f"({made})"
        return made

    def _raised(self, mark: str) -> str:
        inner = (self._parenthesised() if self._next() == "(" else self.group()).strip()
        if mark == "^" and inner in ("∘", "°"):
            return "°"
        if mark == "^" and inner and set(inner) <= {"'"}:
            return inner
        if not inner:
            return ""
        return f"{mark}{inner}" if _SIMPLE_POWER.fullmatch(inner) else f"{mark}({_bare(inner)})"

    def _environment(self, name: str, out: list[str]) -> None:
        kind = self._braced()
        if name == "end" or not kind:
            return
        if kind.rstrip("*") == "array":
            self._braced()
        rows = self._rows()
        if kind in _MATRICES:
            out.append("[" + ",".join("[" + ",".join(row) + "]" for row in rows) + "]")
        elif kind in ("aligned", "align", "align*", "gathered", "split", "equation", "equation*", "gather", "gather*"):
            out.append(";".join("".join(row) for row in rows))
        else:
            out.append(f"{kind}[" + ";".join(",".join(row) for row in rows) + "]")

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = [[]]
        cell: list[str] = []
        self.depth += 1
        if self.depth > _DEEP:
            raise TooDeep(f"{self.depth} levels")
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            if token == "\\end":
                self._braced()
                break
            if token in ("&", "\\\\", "\\cr"):
                rows[-1].append("".join("".join(cell).split()))
                cell = []
                if token != "&":
                    rows.append([])
            elif token != "\\hline":
                self._one(token, cell)
        self.depth -= 1
        rows[-1].append("".join("".join(cell).split()))
        return [row for row in rows if any(row)]

    def group(self) -> str:
        """The next argument: a group in braces, a command with its arguments, or one character."""
        while self._next() in (" ", "\n", "\t"):
            self.at += 1
        token = self._next()
        if token is None or token == "}":
            return ""
        self.at += 1
        if token == "{":
            return self.until("}")
        self.depth += 1
        if self.depth > _DEEP:
            raise TooDeep(f"{self.depth} levels")
        out: list[str] = []
        self._one(token, out)
        if token == "-" and (self._next() or "").isdigit():  # x^-1 is meant as x^{-1}
            out.append(self.tokens[self.at])
            self.at += 1
        self.depth -= 1
        return "".join(out)

    def _parenthesised(self) -> str:
        """Take the content of the parentheses that open next; only the opening one if they never close."""
        depth, end = 0, self.at
        for end in range(self.at, min(len(self.tokens), self.at + MOST)):
            depth += {"(": 1, ")": -1}.get(self.tokens[end], 0)
            if depth == 0:
                break
        if depth:
            self.at += 1
            return "("
        inner = _Reader(self.tokens[self.at + 1 : end])
        inner.depth = self.depth + 1
        self.at = end + 1
        return inner.until(None)

    def _optional(self) -> str:
        if self._next() != "[":
            return ""
        self.at += 1
        return self.until("]")

    def _braced(self) -> str:
        if self._next() != "{":
            return ""
        end = self.at
        while end < len(self.tokens) and self.tokens[end] != "}":
            end += 1
        name = "".join(self.tokens[self.at + 1 : end])
        self.at = end + 1
        return name

    def _next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None


def _wrapped(part: str) -> str:
    return part if _ATOM.fullmatch(part) or _enclosed(part) else f"({part})"


def _bare(part: str) -> str:
    return part[1:-1] if _enclosed(part) else part


def _enclosed(part: str) -> bool:
    """Whether one pair of parentheses holds all of it."""
    if not (part.startswith("(") and part.endswith(")")):
        return False
    depth = 0
    for place, char in enumerate(part):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth == 0:
            return place == len(part) - 1
    return False
