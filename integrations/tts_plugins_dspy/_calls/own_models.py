"""Language models of a user's own class: which of the arguments that a candidate adds to a call they take.

DSPy's own models take all of them, and send no `rollout_id`. A class of the user's may have methods that name what they
take, or that pass all they are given on to a client, which refuses what it does not know.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import dspy

NUMBER = "rollout_id"
"""What keeps a candidate's calls apart, for DSPy's cache alone."""
_METHODS = ("__call__", "acall", "forward", "aforward")
_refusing: WeakSet[type] = WeakSet()  # their clients were seen to refuse the number


def taken(lm: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a call of the model may be given."""
    kind: Any = type(lm)
    if kind is dspy.LM:
        return arguments
    named, refused = _named(kind), {NUMBER} if kind in _refusing else set[str]()
    if not issubclass(kind, dspy.LM):
        refused.add("metadata")  # LiteLLM's, which has the number before DSPy 3.0.3; other clients send it
    return {
        name: value for name, value in arguments.items() if name not in refused and (named is None or name in named)
    }


def refuses_number(lm: Any, error: Exception, arguments: Mapping[str, Any]) -> bool:
    """Return whether a call failed because it was given the candidate's number.

    It is refused before anything is generated: by a client's method as it is called, or by a server as it reads the
    request. Later calls of the class are not given it.
    """
    if isinstance(lm, dspy.LM) or NUMBER not in arguments or NUMBER not in str(error):
        return False
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if not isinstance(error, TypeError) and status not in (400, 422):
        return False
    _refusing.add(type(lm))
    return True


@functools.lru_cache(maxsize=256)
def _named(kind: type) -> frozenset[str] | None:
    """What all of a class's own methods take by name; None where they take any argument."""
    found: frozenset[str] | None = None
    for method in (getattr(kind, name, None) for name in _METHODS):
        if str(getattr(method, "__module__", "")).startswith("dspy.") or not callable(method):
            continue
        parameters = inspect.signature(method).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            found = frozenset(parameters) if found is None else found & frozenset(parameters)
    return found
