"""Text that somebody else wrote, made safe to put in a prompt as data. Pure.

Four things are done to it, none of which relies on a model's cooperation: invisible characters are removed, control
tokens of chat templates are removed, every line is quoted, and the length is capped. `key` makes the delimiter, which
the writer of the text cannot know.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

REMOVED = "[removed]"
QUOTE = "| "

# Look-alikes of the characters of control tokens, replaced one for one, so that places stay the same.
_ALIKE = str.maketrans("＜＞｜［］／﹤﹥‹›˂˃❮❯⟨⟩〈〉ǀ∣❘︱⁄∕▁", "<>|[]/<><><><><><>||||//_")

# Qwen, Llama 2 and 3, Mistral, Gemma, DeepSeek, Phi, GLM, Command; process-reward separators; thought and tool marks.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,48}\|>|<\|?/?(?:assistant|user|system|human)\|?>"
    r"|</?s>|</?(?:bos|eos|pad|unk|sop|eop)>|<extra_\d+>|<(?:start|end)_of_turn>|<unused\d+>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|gMASK|CLS|SEP|MASK|PAD)\]|<<\s?/?SYS\s?>>"
    r"|</?(?:think|thinking|tool_calls?|tool_response|tools|function_calls?|invoke)>",
    re.IGNORECASE,
)
_ROUNDS = 8


def neutralise(text: str) -> str:
    """Return the text without invisible characters and control tokens.

    Removed are zero-width and bidirectional marks, tag characters, variation selectors, control characters (line ends
    and tabs stay), unpaired surrogates, private-use characters; and the control tokens of known chat templates, their
    look-alikes included, each of which leaves "[removed]", so that the text around it forms no new token.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    text = "".join(c for c in text if c in "\n\t" or not _invisible(c))
    for _ in range(_ROUNDS):
        spans = [match.span() for match in _CONTROL.finditer(text.translate(_ALIKE))]
        if not spans:
            return text
        for start, end in reversed(spans):
            text = text[:start] + REMOVED + text[end:]
    return text.translate(_ALIKE).replace("<", "‹").replace("[", "(")  # honest text does not nest deeper than that


def _invisible(char: str) -> bool:
    if char < "\x7f":
        return char < " "
    # Cf: format, Cc: control, Cs: surrogates, Co: private use; variation selectors are marks that show nothing.
    selector = "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    return selector or unicodedata.category(char) in ("Cf", "Cc", "Cs", "Co") or char in "\u115f\u1160\u3164\uffa0"


def quote(text: str, limit: int) -> str:
    """Return the text neutralised, each line behind "| ", in at most `limit` bytes of UTF-8 and a marker.

    If it is longer, its middle is left out and the marker says how much: answers are at the end.
    """
    quoted = "\n".join(QUOTE + line for line in neutralise(text).split("\n"))
    raw = quoted.encode("utf-8", "replace")
    if len(raw) <= limit:
        return quoted
    head = raw[: limit * 6 // 10].decode("utf-8", "ignore")
    tail = raw[len(raw) - (limit - limit * 6 // 10) :].decode("utf-8", "ignore")
    left_out = len(raw) - limit
    return f"{head}\n{QUOTE}[… {left_out} bytes left out here …]\n{QUOTE}{tail.removeprefix(QUOTE)}"


def frame(label: str, text: str, key: str, limit: int) -> str:
    """Return the text as a block of data: quoted, between two lines that carry the key."""
    return f"<<<{label} {key}>>>\n{quote(text, limit)}\n<<<END {label} {key}>>>"


def make_key(seed: int, *texts: str) -> str:
    """Return eight letters and digits that follow from the seed and the texts, and occur in none of these.

    A text cannot hold its own key: it would have to be known before it was written.
    """
    count = 0
    while True:
        digest = hashlib.blake2b("\0".join((str(seed), str(count), *texts)).encode("utf-8", "replace"), digest_size=5)
        key = base64.b32encode(digest.digest()).decode().lower()
        if not any(key in text.lower() for text in texts):
            return key
        count += 1
