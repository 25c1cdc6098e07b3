"""What adapters share: settings as one call changes them, what a failure is charged, what stands behind an error."""

from __future__ import annotations

from typing import Any

import pytest

from tts_plugins import BestOfN, RecursiveAggregation, Revision
from tts_plugins._internal.values import linked
from tts_plugins.adapters import SearchSettings, cause_for, charge_of
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError


def named(standing: Any, name: str, **asked: Any) -> Any:
    return SearchSettings(strategy=standing).changed("it", {"strategy": name, **asked}).strategy


@pytest.mark.parametrize("n", range(1, 41))
def test_a_bare_name_keeps_the_number_of_candidates(n: int) -> None:
    revision = named(BestOfN(n=n), "revision")
    assert revision.chains * revision.rounds == n and revision.chains <= revision.rounds
    merging = named(BestOfN(n=n), "recursive-aggregation")
    assert n - 2 <= merging.population * merging.loops <= n and (n < 4 or merging.loops > 1 < merging.population)
    for name in ("beam-search", "dvts", "particle-filter", "tree-search", "self-consistency"):
        assert named(BestOfN(n=n), name).n == n
    assert named(revision, "best-of-n").n == n, "and back"


def test_the_classes_own_shapes() -> None:
    assert named(BestOfN(n=16), "revision") == Revision()
    assert named(BestOfN(n=24), "recursive_aggregation") == RecursiveAggregation()
    assert named(BestOfN(n=16), "beam-search").beam_width == 4 and named(BestOfN(n=3), "dvts").beam_width == 3
    assert named(None, "revision") == Revision(), "nothing stands"


def test_n_beside_a_bare_name() -> None:
    assert named(BestOfN(n=3), "revision", n=16) == Revision() == named(None, "revision", n=16)
    assert named(BestOfN(n=3), "best-of-n", n=5) == BestOfN(n=5)
    with pytest.raises(ConfigurationError, match=r"it: n='4' must be a whole number"):
        named(BestOfN(n=3), "revision", n="4")
    with pytest.raises(ConfigurationError, match="has no n"):
        named(BestOfN(n=3), {"type": "revision"}, n=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["compute-optimal", "compute_optimal"])
def test_compute_optimal_has_no_bare_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"it: .* `tts-plugins calibrate` wrote; .* ComputeOptimal\.from_file"):
        named(BestOfN(n=3), name)


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
    assert cause_for(refusal, AllCandidatesFailed("all", [other, wrapped])) is None
    assert cause_for(refusal, ExceptionGroup("tasks", [other, wrapped])) is None


def test_all_that_an_error_leads_to_is_found_once_and_the_nearest_first() -> None:
    root, hidden, member = OSError("root"), KeyError("hidden"), ValueError("member")
    group = ExceptionGroup("group", [member])
    group.__cause__, group.__context__ = root, hidden
    hidden.__cause__ = group  # a circle, and beside it more that must be found
    root.__context__ = last = RuntimeError("last")
    assert list(linked(group)) == [group, root, hidden, member, last]
    refused = type("Refused", (Exception,), {"errors": lambda self: [member]})("as pydantic has it")
    assert list(linked(refused)) == [refused]
