"""What an adapter raises when every candidate failed."""

from __future__ import annotations

import gc
import json
import time
import traceback
import weakref
from typing import Any

import pytest

from tts_plugins import solve_sync
from tts_plugins.adapters import CandidateLost, Passing, original_of, raised_for
from tts_plugins.errors import AllCandidatesFailed, AuthenticationFailed, BudgetExhausted, InvalidScore, VerifierError
from tts_plugins.models import CallableModel


class Throttled(ConnectionError):
    def __init__(self, after: float) -> None:
        super().__init__(f"wait {after} s")
        self.after = after


class Frozen(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("frozen")


class Opaque(Exception):
    """Its own code fails when it is asked for what it has not."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def failed(*originals: BaseException | None, kind: Any = CandidateLost) -> AllCandidatesFailed:
    errors = []
    for original in originals:
        error = kind(f"chain: {type(original).__name__}")
        error.__cause__ = original
        errors.append(error)
    made = AllCandidatesFailed(f"all {len(errors)} candidates failed", errors)
    made.__cause__ = errors[0]
    return made


@pytest.mark.parametrize(
    ("originals", "shared"),
    [
        ([Throttled(1), Throttled(2)], Throttled),
        ([Throttled(1), TimeoutError("late")], OSError),
        ([json.JSONDecodeError("no", "", 0), UnicodeError("no")], ValueError),
        ([KeyError("a"), IndexError("b"), KeyError("c")], LookupError),
        ([Throttled(1)], Throttled),
        ([Throttled(1), KeyError("a")], None),
        ([Throttled(1), None], None),
        ([Exception("a"), Exception("b")], None),
        ([Exception("a"), ValueError("b")], None),
        ([None, None], None),
    ],
)
def test_the_first_original_is_raised_if_all_share_a_kind(originals: list[Any], shared: Any) -> None:
    error = failed(*originals)
    raised = raised_for(error)
    if shared is None:
        assert raised is error
        return
    assert raised is originals[0] and isinstance(raised, shared)
    assert raised.__cause__ is error and len(error.errors) == len(originals)
    assert f"all {len(originals)} candidates failed" in raised.__notes__[0]


def test_the_note_counts_the_reasons_and_the_cause_before_is_kept() -> None:
    first = Throttled(3)
    first.__cause__ = OSError("socket")
    raised = raised_for(failed(first, Throttled(1), TimeoutError("late")))
    assert "(2 x Throttled, 1 x TimeoutError)" in raised.__notes__[0] and raised.after == 3  # type: ignore[attr-defined]
    assert str(raised.__cause__.__cause__) == "socket"  # type: ignore[union-attr]


def test_a_fatal_error_of_one_candidate_is_told_the_same_way() -> None:
    error, original = AuthenticationFailed("the key is refused"), PermissionError("401")
    error.__cause__ = original
    raised = raised_for(error)
    assert raised is original and isinstance(raised.__cause__, AllCandidatesFailed)
    assert raised_for(bare := AuthenticationFailed("by itself")) is bare


def test_originals_behind_several_of_our_errors_are_found() -> None:
    inner, outer = CandidateLost("inner"), VerifierError("outer")
    inner.__cause__, outer.__cause__ = ValueError("no"), inner
    assert isinstance(original_of(outer), ValueError) and original_of(InvalidScore("nan")) is None


def test_an_exception_that_is_raised_again_gets_no_second_note_and_no_longer_chain() -> None:
    one = Throttled(1)
    for _ in range(3):
        raised_for(failed(one, one))
    assert len(one.__notes__) == 1 and one.__cause__.__cause__ is None  # type: ignore[union-attr]
    raised_for(failed(one))
    assert len(one.__notes__) == 2


def test_an_exception_that_takes_no_note_is_raised_without_one() -> None:
    frozen = Frozen("no")
    assert raised_for(failed(frozen)) is frozen and isinstance(frozen.__cause__, AllCandidatesFailed)


def test_a_budget_is_no_failure_that_a_retry_could_mend() -> None:
    assert issubclass(BudgetExhausted, RuntimeError)  # LangGraph's default policy retries no RuntimeError
    assert not issubclass(AllCandidatesFailed, RuntimeError)


def search(passing: Passing, errors: list[Any]) -> None:
    """A search as adapters run it, in which the user's function fails."""

    def fails(problem: Any) -> str:
        try:
            raise Throttled(1)
        except Throttled as error:
            errors.append(weakref.ref(error))
            raise CandidateLost(f"chain: {error}") from error

    with passing.out():
        solve_sync("?", model=CallableModel(fails))


def test_nothing_is_left_for_the_collector_of_cycles() -> None:
    errors: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        try:
            search(Passing(), errors)
        except Throttled as error:
            text = "".join(traceback.format_exception(error))
            assert error.__context__ is error.__cause__ or error.__context__ is None
        end = time.monotonic() + 60
        while any(error() is not None for error in errors) and time.monotonic() < end:
            time.sleep(0.02)  # the loop's thread lets go a moment later
        assert [error() for error in errors] == [None] * len(errors) and errors
    finally:
        gc.enable()
    assert "AllCandidatesFailed: all 8 candidates failed" in text and "direct cause" in text


def test_an_error_that_cannot_be_asked_for_more_is_told_all_the_same() -> None:
    from tts_plugins.adapters._charge import is_fatal
    from tts_plugins.adapters._error_messages import described

    assert described(Opaque("no answer")) == "Opaque: no answer" and not is_fatal(Opaque("no answer"))
    first = Opaque("no answer")
    assert raised_for(failed(first, Opaque("none either"))) is first


def test_a_key_that_a_server_says_again_is_not_in_what_is_said_of_the_candidate() -> None:
    openai = pytest.importorskip("openai")
    from tts_plugins.adapters._error_messages import described
    from tts_plugins.testing.loopback import Fault, LoopbackServer

    key = "sk-never-to-be-shown-123"
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}."}})
    with LoopbackServer(faults=Fault.status(401, body=body)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": "q"}])
        client.close()
    wrapped = RuntimeError("the chain failed")
    wrapped.__cause__ = caught.value
    for error in (caught.value, wrapped):
        assert key in str(caught.value) and key not in described(error) and "check api_key" in described(caught.value)
