"""`solve_many` on a local Ray: order, one budget, deaths, and what cannot be sent."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tts_plugins
from tests.distributed import work
from tts_plugins import BestOfN, Budget, Ledger, Problem, Result, SelfConsistency, solve_many, solve_stream
from tts_plugins.budget import Limits
from tts_plugins.distributed import Factory, RayEngine
from tts_plugins.distributed.connection import check_versions, versions
from tts_plugins.errors import BudgetExhausted, ConfigurationError, JobFailed, RequestRefused, TTSError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.scripted import ScriptedModel

pytestmark = pytest.mark.usefixtures("cluster")
FOUR: dict[str, Any] = {"strategy": BestOfN(n=4), "verifier": work.perfect}


class Judge:
    def __init__(self, model: Any) -> None:
        self.model = model


async def test_results_keep_their_order_and_are_those_of_the_local_engine() -> None:
    problems = [f"q{i}" for i in range(40)]
    settings: dict[str, Any] = {"strategy": SelfConsistency(n=2), "seed": 7}
    here = await solve_many(problems, model=work.model(), **settings)
    model = Factory(work.names_its_process)
    there = await solve_many(problems, model=model, engine=RayEngine(workers=2), **settings)
    assert [r.problem.text for r in there] == problems
    assert [r.seed for r in there] == [r.seed for r in here]
    assert [r.usage.calls for r in there] == [2] * 40
    # A worker has room for all of them, and gets its part.
    assert sorted(Counter(r.text for r in there).values()) == [20, 20]


async def test_results_stream_in_either_order_and_the_problems_are_taken_as_there_is_room() -> None:
    taken = 0

    def problems() -> Iterator[str]:
        nonlocal taken
        for i in range(2000):
            taken += 1
            yield f"q{i}"

    engine, ledger = RayEngine(workers=1, in_flight=8), Ledger(Budget(calls=100_000))
    stream = solve_stream(
        problems(), model=Factory(work.model, 0.005), ordered=True, engine=engine, budget=ledger, **FOUR
    )  # fmt: skip
    seen = []
    async for number, _ in stream:
        seen.append(number)
        if number == 100:
            break
    await stream.aclose()
    assert seen == list(range(101))
    assert taken < 1000
    assert_over(ledger, engine, least=404)  # also of a stream that its reader has left


async def test_one_ledger_pays_for_all_workers_and_is_used_up() -> None:
    ledger = Ledger(Budget(calls=400))
    engine = RayEngine(workers=2, in_flight=16)
    found = await solve_many(
        range(130), model=Factory(work.model, 0.002), engine=engine, budget=ledger, return_errors=True, **FOUR
    )  # fmt: skip
    solved = [r for r in found if isinstance(r, Result)]
    assert sum(r.usage.calls for r in solved) == ledger.spent.calls == engine.stats.spent.calls
    assert 396 <= ledger.spent.calls <= 400
    assert not any(ledger.held)
    assert all(isinstance(r, Result | BudgetExhausted) for r in found)
    assert ledger.usage.exact and not any(ledger.overshoot)
    with pytest.raises(BudgetExhausted):
        await solve_many(["q"], model=Factory(work.model), engine=engine, budget=Ledger(Budget(tokens=1)), **FOUR)


async def test_each_solve_has_a_budget_of_its_own_inside_the_engine_s() -> None:
    engine = RayEngine(workers=1, budget=Budget(calls=1000))
    found = await solve_many([*"abcdef"], model=Factory(work.model), engine=engine, budget=Budget(calls=3), **FOUR)
    assert [r.usage.calls for r in found] == [3] * 6
    assert engine.stats.spent.calls == 18


async def test_a_killed_worker_costs_what_was_under_way_and_nothing_else(tmp_path: Path) -> None:
    problems = [f"q{i}" for i in range(200)]
    deadly = Factory(work.Deadly, "q77", str(tmp_path / "once"))
    engine = RayEngine(workers=2, in_flight=8, budget=Budget(calls=100_000))
    numbers, calls = [], 0
    async for number, result in solve_stream(problems, model=deadly, engine=engine, **FOUR):
        assert isinstance(result, Result)
        numbers.append(number)
        calls += result.usage.calls
    assert sorted(numbers) == list(range(200))
    assert engine.stats.workers_lost == 1
    # Its open calls are charged, on top of those of all results.
    assert 1 <= engine.stats.repeated <= 200 and calls == 800
    assert 800 <= engine.stats.spent.calls <= 800 + 4 * engine.stats.repeated


async def test_a_killed_account_is_restored() -> None:
    import ray

    engine, killed = RayEngine(workers=2, in_flight=8, budget=Budget(calls=1200)), False
    calls = 0
    async for _, result in solve_stream(
        range(400), model=Factory(work.model, 0.005), engine=engine, return_errors=True, **FOUR
    ):
        calls += result.usage.calls if isinstance(result, Result) else 0
        if not killed and calls > 300:
            killed = True
            accounts = [each for each in ray.util.list_named_actors(all_namespaces=True)]
            name = next(each["name"] for each in accounts if each["name"].startswith("tts-plugins-account-"))
            actor = ray.get_actor(name, namespace="tts_plugins")
            os.kill(ray.get(actor.figures.remote())["process"], signal.SIGKILL)
    assert killed
    assert engine.stats.workers_lost == 0
    assert 0.99 * 1200 <= calls == engine.stats.spent.calls <= 1200


async def test_an_account_that_is_lost_for_good_costs_all_that_was_left() -> None:
    import ray

    ledger, killed = Ledger(Budget(calls=5000)), False
    with pytest.raises(TTSError, match="the account of the budget is lost"):
        async for _ in solve_stream(map(str, range(5000)), model=Factory(work.model, 0.02), budget=ledger,
                                    engine=RayEngine(workers=1, in_flight=8), return_errors=True, **FOUR):  # fmt: skip
            if not killed:
                killed = True
                names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
                name = next(name for name in names if name.startswith("tts-plugins-account-"))
                ray.kill(ray.get_actor(name, namespace="tts_plugins"))
    assert ledger.spent.calls == 5000 and not any(ledger.held)


async def test_a_problem_that_kills_each_worker_fails_alone() -> None:
    problems = [*"abc", "bad", *"defgh"]
    engine = RayEngine(workers=1, in_flight=4)
    model = Factory(work.Deadly, "bad", None)
    found = await solve_many(problems, model=model, engine=engine, return_errors=True, **FOUR)
    assert [isinstance(each, Result) for each in found] == [problem != "bad" for problem in problems]
    assert isinstance(found[3], JobFailed) and "4 workers died while problem 3 was under way" in str(found[3])
    assert engine.stats.workers_lost == 4


def assert_over(ledger: Ledger, engine: RayEngine, least: int) -> None:
    """All is paid for, and nothing of ours runs any more."""
    import ray

    assert ledger.spent == engine.stats.spent and ledger.spent.calls >= least and not any(ledger.held)
    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
    assert not [name for name in names if name.startswith("tts-plugins-account-")]


async def test_the_first_error_ends_the_rest_and_what_was_spent_is_charged() -> None:
    model = Factory(ScriptedModel, [RequestRefused("no")])
    with pytest.raises(TTSError, match="no"):
        await solve_many([*"abc"], model=model, engine=RayEngine(workers=1), **FOUR)
    engine, ledger = RayEngine(workers=1, in_flight=8), Ledger(Budget(calls=100_000))
    with pytest.raises(TTSError, match="not this one"):
        await solve_many(map(str, range(500)), model=Factory(work.model, 0.005), strategy=BestOfN(n=4),
                         verifier=work.refuses, engine=engine, budget=ledger)  # fmt: skip
    assert_over(ledger, engine, least=4)


async def test_what_cannot_be_pickled_is_named_with_its_fix() -> None:
    own = OpenAICompatibleModel("m", base_url="http://127.0.0.1:9/v1", api_key="sk-secret-secret-secret")
    with pytest.raises(ConfigurationError, match=r"model=OpenAICompatibleModel cannot be pickled.*Factory") as caught:
        await solve_many(["a"], model=own, engine=RayEngine(workers=1), **FOUR)
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"model=Factory\(Judge, …\) cannot be pickled.*further factories"):
        await solve_many(["a"], model=Factory(Judge, own), engine=RayEngine(workers=1), **FOUR)
    with pytest.raises(ConfigurationError, match=r"connections cannot be pickled.*give a recipe"):
        pickle.dumps(own)  # as Ray Data would, which names only its own mapper
    assert copy.deepcopy(own).name == "m"
    await own.aclose()
    lock = threading.Lock()

    def locked(problem: Problem, candidate: object) -> float:
        with lock:
            return 1.0

    with pytest.raises(ConfigurationError, match="verifier=function cannot be pickled"):
        await solve_many(["a"], model=Factory(work.model), verifier=locked, engine=RayEngine(workers=1))
    with pytest.raises(ConfigurationError, match="problem 1 cannot be pickled"):
        await solve_many(["a", Problem("b", metadata={"lock": lock})], model=Factory(work.model),
                         engine=RayEngine(workers=1), **FOUR)  # fmt: skip


def test_a_factory_takes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="api_key_env"):
        Factory(OpenAICompatibleModel, "m", api_key="sk-secret")
    with pytest.raises(ConfigurationError, match="api_key_env"):
        Factory(functools.partial(OpenAICompatibleModel, api_key="sk-secret"), "m")
    for headers in ({"Authorization": "Bearer sk-secret"}, {"x-api-key": "sk-secret"}, {"X-Auth-Token": "sk-secret"}):
        with pytest.raises(ConfigurationError, match="headers=… would be sent"):
            Factory(OpenAICompatibleModel, "m", headers=headers)
    with pytest.raises(ConfigurationError, match="base_url=… would be sent"):
        Factory(OpenAICompatibleModel, "m", base_url="http://me:sk-secret@host/v1")
    plain = Factory(dict, base_url="http://host/v1", headers={"X-Team": "a"}, params={"max_tokens": 3, "keys": 1})
    assert plain()["params"] == {"max_tokens": 3, "keys": 1} and repr(plain) == "Factory(dict, …)"
    recipe = Factory(dict, api_key_env="TTS_TEST_KEY")
    with pytest.raises(ConfigurationError, match="TTS_TEST_KEY"):
        recipe()
    monkeypatch.setenv("TTS_TEST_KEY", "k")
    assert recipe() == {"api_key": "k"}
    with pytest.raises(ConfigurationError, match="cannot be called"):
        Factory("not a function")  # type: ignore[arg-type]


def test_factories_may_be_arguments_of_another() -> None:
    assert Factory(Judge, Factory(dict, a=1))().model == {"a": 1}
    assert Factory(Judge, model=Factory(list, "ab"))().model == ["a", "b"]


async def test_an_address_of_another_cluster_is_refused() -> None:
    for address in ("127.0.0.1:1", "no-such-host.invalid:6379"):
        with pytest.raises(ConfigurationError, match=r"this process is in the cluster at .* already; leave"):
            await solve_many(["a"], model=Factory(work.model), engine=RayEngine(address, workers=1), **FOUR)


async def test_a_worker_that_cannot_make_its_model_says_why() -> None:
    with pytest.raises(ConfigurationError, match="TTS_NO_SUCH_KEY"):
        await solve_many(["a"], model=Factory(dict, api_key_env="TTS_NO_SUCH_KEY"), engine=RayEngine(workers=1))


async def test_places_are_divided_and_too_few_are_refused() -> None:
    engine = RayEngine(workers=2, in_flight=16)
    with pytest.raises(TTSError, match="at most 1 workers"):
        await solve_many([*"ab"], model=Factory(work.model, limits=Limits(concurrency=1)), engine=engine, **FOUR)


async def test_workers_with_other_versions_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"node n1 have tts-plugins 0.0.1 \(here .*\); install the same"):
        check_versions({**versions(), "tts-plugins": "0.0.1"}, "n1")
    with pytest.raises(ConfigurationError, match="have Python 3"):
        check_versions({**versions(), "Python": "3.1"}, "n1")


async def test_another_build_of_the_same_version_is_named(tmp_path: Path) -> None:
    shutil.copytree(Path(tts_plugins.__file__).parent, tmp_path / "tts_plugins")
    with (tmp_path / "tts_plugins/_version.py").open("a") as file:
        file.write("# another build\n")
    # Imported before Ray puts the driver's folders first.
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tts_plugins")
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    engine = RayEngine(workers=1, options={"runtime_env": {"env_vars": {"PYTHONPATH": path}}})
    with pytest.raises(ConfigurationError, match=r"another build of tts-plugins .*, with code \w+ \(here \w+\)"):
        await solve_many(["a"], model=Factory(work.model), engine=engine, **FOUR)


@pytest.mark.parametrize("settings", [{"workers": 0}, {"in_flight": True}, {"budget": 3}, {"address": 7}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"RayEngine: {next(iter(settings))}="):
        RayEngine(**settings)


async def test_a_file_that_is_no_account_is_named(tmp_path: Path) -> None:
    path = tmp_path / "account.sqlite"
    path.write_bytes(b"no database" * 100)
    engine = RayEngine(workers=1, budget=Budget(calls=5), account=path)
    with pytest.raises(TTSError, match="it is not a file of this kind"):
        await solve_many(["a"], model=Factory(work.model), engine=engine, **FOUR)


async def test_an_account_file_remembers_what_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "account.sqlite"
    for calls, expected in ((8, 8), (12, 12)):
        engine = RayEngine(workers=1, budget=Budget(calls=calls), account=path)
        await solve_many([*"abc"], model=Factory(work.model), engine=engine, return_errors=True, **FOUR)
        assert engine.stats.spent.calls == expected
    with pytest.raises(BudgetExhausted, match="12 calls are spent, of 12"):
        await solve_many([*"abc"], model=Factory(work.model), engine=engine, return_errors=True, **FOUR)
