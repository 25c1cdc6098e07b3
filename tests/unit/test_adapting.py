"""What adapters share: what a framework's failure is charged, and what stands behind the error that is raised."""

from __future__ import annotations

from tts_plugins.adapting import cause_for, charge_of


class ConnectError(Exception):
    """As HTTP clients call it."""


def test_a_refused_connection_is_found_among_the_causes() -> None:
    error, cause = RuntimeError("outer"), ConnectError("nobody there")
    error.__cause__ = cause
    assert charge_of(error, None) == "call"
    assert charge_of(RuntimeError("other"), None) == "reserve"
    assert charge_of(error, 404) == "call"


def test_causes_that_go_in_a_circle_are_followed_once() -> None:
    own, first, second = RuntimeError("its own"), RuntimeError("a"), RuntimeError("b")
    own.__cause__ = own
    first.__cause__, second.__cause__ = second, first
    assert charge_of(own, None) == charge_of(first, None) == "reserve"


def test_no_error_becomes_its_own_cause() -> None:
    refusal, wrapped, other = RuntimeError("no room"), ValueError("wrapped"), KeyError("other")
    wrapped.__cause__ = refusal
    assert cause_for(other, wrapped) is wrapped
    assert cause_for(wrapped, wrapped) is refusal  # raised as it came
    assert cause_for(refusal, wrapped) is None  # raised again for what was made of it
