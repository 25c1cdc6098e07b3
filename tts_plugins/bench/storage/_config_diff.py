"""In what two configurations of a benchmark differ, in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what was and is, by name: strategies that were added or left out first, then what has changed."""
    return [
        *_arms(old.get("arms") or {}, new.get("arms") or {}),
        *_problems(old.get("problems"), new.get("problems")),
        *_changes("", _shared(old, new), _shared(new, old)),
    ]


def grown(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether only problems were added: what was solved of the others stays valid."""
    had, has = old.get("problems"), new.get("problems")
    if not isinstance(had, Mapping) or not isinstance(has, Mapping) or had == has:
        return False
    same = all(has.get(name) == value for name, value in had.items())
    return same and {**old, "problems": None} == {**new, "problems": None}


def in_grade_alone(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether only the grade has changed: it decides what is right, not what is requested."""
    return old != new and {**old, "grade": None} == {**new, "grade": None}


def _arms(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for word, has, lacks in (("left out", old, new), ("added", new, old)):
        if names := [name for name in has if name not in lacks]:
            yield f"strategies {word}: {', '.join(names)}"


def _problems(old: Any, new: Any) -> Iterable[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return
    kinds = (
        ("is new", [name for name in new if name not in old]),
        ("is left out", [name for name in old if name not in new]),
        ("has changed", [name for name in old if name in new and old[name] != new[name]]),
    )
    for word, names in kinds:
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            yield f"problem {names[0]!r} {word}{more}"


def _shared(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with only the strategies that the other one also has, and without problem names."""
    arms, others = config.get("arms") or {}, other.get("arms") or {}
    made = {**config, "arms": {name: arm for name, arm in arms.items() if name in others}}
    if isinstance(config.get("problems"), Mapping) and isinstance(other.get("problems"), Mapping):
        del made["problems"]
    return made


def _changes(where: str, old: Any, new: Any) -> Iterable[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _changes(f"{where}.{key}" if where else str(key), old.get(key), new.get(key))
    elif old != new:
        yield f"{where} was {json.dumps(old):.80} and is {json.dumps(new):.80}"
