"""The demo task: pull who ordered what, and how many, out of a short message, as JSON.

The texts and their records are invented; they lie in ``records.jsonl`` beside this file. :func:`check` is the
verifier. It sees the message and the reply and never the record. It tests the schema, that every value stands in the
message, and a few plain cues about shape (a person's name has two words or more; goods are written without digits or
capitals; a quantity is a number of its own, not part of a date, a time of day or a reference, and stands at most three
words before the goods). It cannot tell the customer from another person in the message, or the goods that are wanted
from others that are counted in it ("10 plates", "15 soup bowls"): such errors pass.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 60},
        "item": {"type": "string", "minLength": 3, "maxLength": 60},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 1000},
    },
    "required": ["name", "item", "quantity"],
    "additionalProperties": False,
}

SYSTEM = (
    "Copy the record out of the message as JSON. name: the customer's full name; item: the goods; quantity: how many."
)

EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    (
        "Peter Hale here: please bring 5 wooden stools to Denver on 4 July 2025, reference AB-1234.",
        {"name": "Peter Hale", "item": "wooden stools", "quantity": 5},
    ),
    (
        "Not 3 lamps now but 40 copper pipes for Lucia Romano, to Naples by March 9, 2025, at 8:15.",
        {"name": "Lucia Romano", "item": "copper pipes", "quantity": 40},
    ),
]

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NOT_A_QUANTITY = re.compile(
    rf"\d{{4}}-\d\d-\d\d"  # 2026-05-03
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? \d{{4}})?"  # 3 May 2026
    rf"|\b{_MONTH} \d{{1,2}}(?:,? \d{{4}})?"  # May 3, 2026
    r"|\b\d{1,2}:\d\d\b"  # 9:30
    r"|\b\w+-\d+\b"  # QL-2210
)
_VALIDATOR = Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class Example:
    """One message with its known record; ``level`` is easy, medium or hard."""

    id: str
    text: str
    record: dict[str, Any]
    level: str


def load() -> list[Example]:
    """Read every example from ``records.jsonl`` in this module's folder."""
    lines = Path(__file__).with_name("records.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(**json.loads(line)) for line in lines if line.strip()]


def messages(text: str) -> list[dict[str, str]]:
    """Build the chat that asks for one record: task, worked examples, the message last (for prefix caching)."""
    chat = [{"role": "system", "content": SYSTEM}]
    for question, record in EXAMPLES:
        chat.append({"role": "user", "content": question})
        chat.append({"role": "assistant", "content": json.dumps(record)})
    return [*chat, {"role": "user", "content": text}]


def parse(text: str) -> dict[str, Any] | None:
    """Find the first JSON object in a model's reply, or None where there is none."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check(text: str, reply: str) -> tuple[float, str]:
    """Score a reply against its message alone: the share of the tests that it passes, and in words those that it fails.

    1.0 means that nothing can be found wrong without knowing the record; it does not mean that the record is right.
    """
    found = parse(reply)
    if found is None:
        return 0.0, "The reply holds no JSON object."
    schema_faults = [error.message for error in _VALIDATOR.iter_errors(found)]
    tests = [(not schema_faults, "Schema: " + "; ".join(schema_faults) + ".")]
    tests += _name_tests(text, found.get("name"))
    tests += _item_tests(text, found.get("item"), found.get("name"))
    tests += _quantity_tests(text, found.get("quantity"), found.get("item"))
    faults = [words for passed, words in tests if not passed]
    return (len(tests) - len(faults)) / len(tests), " ".join(faults) or "Nothing found wrong."


def matches(record: dict[str, Any], reply: str) -> bool:
    """Tell whether a reply is the known record exactly.

    The same keys, the quantity the same integer, and the strings equal after joining white space, ignoring case and
    cutting punctuation from the ends.
    """
    found = parse(reply)
    if found is None or found.keys() != record.keys():
        return False
    return all(_same(found[key], value) for key, value in record.items())


def _same(found: object, known: object) -> bool:
    if isinstance(known, str):
        return isinstance(found, str) and _plain(found) == _plain(known)
    return type(found) is type(known) and found == known


def _plain(value: str) -> str:
    return " ".join(value.split()).casefold().strip(" .,;:!?\"'")


def _stands_in(value: str, text: str) -> bool:
    """Tell whether a value occurs in the text as whole words, ignoring case and spacing."""
    wanted = _plain(value)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", _plain(text)) is not None


def _name_tests(text: str, name: object) -> list[tuple[bool, str]]:
    value = name if isinstance(name, str) else ""
    words = value.split()
    shaped = 2 <= len(words) <= 5 and words[0][0].isupper() and words[-1][0].isupper() and not re.search(r"\d", value)
    return [
        (_stands_in(value, text), f"The name {value!r} does not stand in the message."),
        (shaped, f"The name {value!r} is not a first and a last name."),
    ]


def _item_tests(text: str, item: object, name: object) -> list[tuple[bool, str]]:
    value = item if isinstance(item, str) else ""
    goods = bool(value) and value == value.lower() and not re.search(r"\d", value) and len(value.split()) <= 4
    apart = not isinstance(name, str) or not (_stands_in(value, name) or _stands_in(name, value))
    return [
        (_stands_in(value, text), f"The item {value!r} does not stand in the message."),
        (goods and apart, f"The item {value!r} is not plain goods: a few words, no digits, no capitals, no name."),
    ]


def _quantity_tests(text: str, quantity: object, item: object) -> list[tuple[bool, str]]:
    left = _plain(_NOT_A_QUANTITY.sub(" ", text))
    whole = type(quantity) is int and re.search(rf"(?<!\w){quantity}(?!\w)", left) is not None
    goods = re.escape(_plain(item)) if isinstance(item, str) else ""
    near = whole and goods and re.search(rf"(?<!\w){quantity}(?:\W+\w+){{0,2}}\W+{goods}(?!\w)", left) is not None
    words = "is not a number of its own in the message (dates, times and references do not count)."
    return [
        (whole, f"The quantity {quantity!r} {words}"),
        (bool(near), f"The quantity {quantity!r} does not stand just before the item {item!r}."),
    ]
