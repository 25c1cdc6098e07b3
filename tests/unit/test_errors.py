"""Errors cross processes: each class of this package can be pickled, and takes neither accounts nor keys along."""

from __future__ import annotations

import concurrent.futures
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

from tts_plugins import Budget, Ledger, SelfConsistency, solve_sync
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConnectionFailed,
    RateLimited,
    RequestNotSent,
    TTSError,
)
from tts_plugins.models import CallableModel

PACKAGES = ("tts_plugins", "tts_plugins_langchain", "tts_plugins_dspy", "tts_plugins_openai")
SIDE_EFFECTS = ("__main__", ".server_process", ".zygote", ".child", "_math_worker")  # they run when they are imported


POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
GIVEN = {"float": 0.5, "int": 418, "bytes": b"{}", "Mapping[str, str]": {"retry-after": "3"}}  # by annotation


def of_ours() -> list[type[BaseException]]:
    """Every class of exception that any module of the packages defines."""
    found: dict[type[BaseException], None] = {}
    for name in (each for package in PACKAGES for each in modules(package)):
        try:
            module = importlib.import_module(name)
        except ImportError:  # an extra that is not installed
            continue
        kinds = (value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name)
        found.update(dict.fromkeys(kind for kind in kinds if issubclass(kind, BaseException)))
    return list(found)


def modules(package: str) -> Iterator[str]:
    try:
        root = importlib.import_module(package)
    except ImportError:
        return
    yield package
    for each in pkgutil.walk_packages(root.__path__, f"{package}.", onerror=lambda _: None):
        if not each.name.endswith(SIDE_EFFECTS):
            yield each.name


def needed(kind: type[BaseException]) -> list[str]:
    """The annotations of what it has to be given."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # it takes what an Exception takes
        return []
    return [str(p.annotation) for p in parameters if p.default is p.empty and p.kind is POSITIONAL]


def made(kind: type[BaseException]) -> BaseException:
    """One with everything that is ever put on an error."""
    error = kind(*[GIVEN.get(annotation, "what; the value; what to do") for annotation in needed(kind)] or ["what"])
    error.__cause__ = RateLimited("slow down", retry_after=3.0)
    if isinstance(error, TTSError):
        vars(error).update(ledger=Ledger(Budget(calls=1)), model=CallableModel(str), requests=7, retry_after=2.5)
    return error


@pytest.mark.parametrize("kind", of_ours(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_every_error_can_be_pickled(kind: type[BaseException], protocol: int) -> None:
    error = made(kind)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is kind
    assert (str(back), back.args) == (str(error), error.args)
    if isinstance(error, TTSError):
        assert (vars(back)["requests"], vars(back)["retry_after"]) == (7, 2.5)
        assert isinstance(back.__cause__, RateLimited) and back.__cause__.retry_after == 3.0


def test_all_classes_were_found() -> None:
    names = {kind.__name__ for kind in of_ours()}
    assert names > {"TTSError", "BudgetExhausted", "UserCodeFailed", "TooLate", "MeterClosed", "Unreadable"}


class Foreign(Exception):
    def __init__(self, secret: str, request: object) -> None:
        super().__init__(f"refused {secret}")
        self.request = request


def test_accounts_clients_and_foreign_errors_stay_behind() -> None:
    key = "sk-very-secret"
    lost = AllCandidatesFailed("all failed", [ConnectionFailed("away", refused=True), Foreign(key, lambda: None)])
    lost.__cause__ = Foreign(key, lambda: None)
    data = pickle.dumps(lost)
    back = pickle.loads(data)
    assert key.encode() not in data
    assert back.__cause__ is None
    assert [type(e) for e in back.errors] == [ConnectionFailed, TTSError] and back.errors[0].charge == "call"
    assert pickle.loads(pickle.dumps(RequestNotSent("no", model=lambda: key))).model is None


def out_of_budget() -> None:
    """In a worker."""
    model = CallableModel(lambda content: "4", max_tokens=1000)
    solve_sync("2 + 2?", model=model, strategy=SelfConsistency(n=2), budget=Budget(tokens=5))


def test_a_worker_s_error_arrives_whole() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        done = pool.submit(out_of_budget)
        with pytest.raises(BudgetExhausted, match="too small for a single call") as raised:
            done.result(timeout=60)
    assert raised.value.ledger is None


def test_a_cause_that_goes_in_a_circle() -> None:
    first, second = BudgetExhausted("first"), BudgetExhausted("second")
    first.__cause__, second.__cause__ = second, first
    back = pickle.loads(pickle.dumps(first))
    assert str(back.__cause__) == "second" and back.__cause__.__cause__ is back
