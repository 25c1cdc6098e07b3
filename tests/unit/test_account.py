"""One account for many workers: leases, what is returned, who dies, and what is restored."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.waiting import block_until
from tts_plugins import BestOfN, Budget, Candidate, Problem, solve
from tts_plugins.budget import Amount
from tts_plugins.distributed import account as accounts
from tts_plugins.distributed._open_calls import Alive, OpenCalls, used_by_dead
from tts_plugins.distributed.account import Account, Ask, Grant, WorkerLost
from tts_plugins.distributed.lease import LeasedLedger
from tts_plugins.errors import BudgetExhausted, ConfigurationError, DataError, TTSError
from tts_plugins.testing.scripted import ScriptedModel

ONE = Amount(1)


def perfect(problem: Problem, candidate: Candidate) -> float:
    return 1.0


def sender(account: Account, wait: Callable[[], float] = lambda: 0.0) -> Callable[[Ask], object]:
    async def send(ask: Ask) -> Grant:
        await asyncio.sleep(wait())
        answer = account.ask(ask)
        await asyncio.sleep(wait())
        return answer

    return send


async def race(account: Account, budget: Budget, workers: int, solves: int, latency: float = 0.001) -> int:
    """Workers that solve until nothing is left; return how many generations were asked for."""
    model = ScriptedModel(["42"], latency=latency)

    async def worker(name: str) -> None:
        ledger = LeasedLedger(budget, sender(account), worker=name)

        async def one() -> None:
            with contextlib.suppress(BudgetExhausted):
                await solve("q", model=model, strategy=BestOfN(n=4), verifier=perfect, budget=ledger, seed=1)

        places = asyncio.Semaphore(16)

        async def placed() -> None:
            async with places:
                await one()

        await asyncio.gather(*(placed() for _ in range(solves)))
        assert ledger.failed is None
        assert not any(ledger.held)
        await ledger.return_idle()

    await asyncio.gather(*(worker(f"w{i}") for i in range(workers)))
    return sum(map(len, model.requests))


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_racing_workers_use_all_of_it_and_no_more(workers: int) -> None:
    budget = Budget(calls=2000)
    account = Account(budget, workers=workers)
    asked = await race(account, budget, workers, 2600 // workers // 4)
    assert account.spent.calls == asked <= 2000
    assert asked >= 0.99 * 2000
    assert account.messages <= 120


async def test_far_from_the_limit_there_are_few_messages() -> None:
    budget = Budget(calls=10_000_000)
    account = Account(budget, workers=2)
    await race(account, budget, 2, 300)
    assert account.messages <= 6


@settings(max_examples=30)
@given(
    calls=st.integers(1, 60), tokens=st.integers(10, 1200), workers=st.integers(1, 4), seed=st.integers(0, 2**16)
)  # fmt: skip
def test_no_interleaving_overspends(calls: int, tokens: int, workers: int, seed: int) -> None:
    asyncio.run(_any_order(calls, tokens, workers, seed))


async def _any_order(calls: int, tokens: int, workers: int, seed: int) -> None:
    budget, rng = Budget(calls=calls, tokens=tokens), random.Random(seed)
    account, spent = Account(budget, workers=workers), []

    async def worker(name: str) -> None:
        ledger = LeasedLedger(budget, sender(account, lambda: rng.choice([0.0, 0.001])), worker=name)

        async def call() -> None:
            from tts_plugins._calls.reservation import acquire
            from tts_plugins.types import Usage

            bound = Amount(1, rng.randint(5, 60))
            try:
                hold = await acquire(ledger, bound)
            except BudgetExhausted:
                return
            await asyncio.sleep(rng.choice([0.0, 0.002]))
            used = Amount(1, rng.randint(0, bound.tokens))
            hold.settle(Usage(calls=1, completion_tokens=used.tokens))
            spent.append(used)
            taken = account.spent.plus(account.leased)
            assert taken.calls <= calls
            assert taken.tokens <= tokens

        await asyncio.gather(*(call() for _ in range(rng.randint(1, 40))))
        await ledger.return_idle()

    await asyncio.wait_for(asyncio.gather(*(worker(f"w{i}") for i in range(workers))), 120)
    assert sum(a.calls for a in spent) == account.spent.calls <= calls
    assert sum(a.tokens for a in spent) == account.spent.tokens <= tokens


async def test_the_same_message_twice_is_granted_once(tmp_path: Path) -> None:
    account = Account(Budget(calls=100), tmp_path / "a.sqlite", workers=1)
    ask = Ask("w", 1, Amount(), Amount(), ONE)
    first = account.ask(ask)
    assert account.ask(ask) == first
    account.close()
    again = Account(Budget(calls=100), tmp_path / "a.sqlite", workers=1)
    assert again.ask(ask) == first
    assert again.leased == first.granted


async def test_it_is_restored_and_a_larger_limit_continues(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    account = Account(Budget(calls=10), path, workers=1)
    account.ask(Ask("w", 1, Amount(), Amount(), ONE))
    account.leave("w", Amount(9))
    account.close()
    account = Account(Budget(calls=10), path, workers=1)
    assert account.spent == Amount(9)
    assert account.ask(Ask("v", 1, Amount(), Amount(), Amount(2))).granted == Amount()
    account.close()
    account = Account(Budget(calls=20), path, workers=1)
    assert account.ask(Ask("u", 1, Amount(), Amount(), Amount(2))).granted.calls >= 2


WORKER = """
import sys, time
from pathlib import Path
from tts_plugins.budget import Amount
from tts_plugins.distributed._open_calls import OpenCalls
file = OpenCalls(Path(sys.argv[1]))
file.write(Amount(3, 30, 3_000), Amount(2, 25, 1_500))
print("ready", flush=True)
time.sleep(600)
"""


def dead_worker(path: Path, look: Callable[[], None] = lambda: None) -> None:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WORKER), str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        look()
    finally:
        process.kill()
        process.communicate()


def test_a_killed_worker_is_charged_what_it_had_open(tmp_path: Path) -> None:
    path = tmp_path / "calls"

    def look() -> None:
        with pytest.raises(Alive):
            used_by_dead(path)

    dead_worker(path, look)
    # Money is kept in nanodollars, rounded up.
    assert used_by_dead(path) == Amount(5, 55, 5_000)
    account = Account(Budget(calls=100), workers=1)
    account.ask(Ask("w", 1, Amount(), Amount(), Amount(40), True, "", str(path)))
    assert account.leased.calls >= 40
    assert account.bury() == 1
    assert account.spent.calls == 5
    assert account.leased == Amount()
    with pytest.raises(WorkerLost):
        account.ask(Ask("w", 2, Amount(5), Amount(5), ONE))


def test_no_instant_of_a_write_shows_less_than_was_spent(tmp_path: Path) -> None:
    """As a kill would leave it: of 255 and 256, byte by byte, there was 0 in between."""
    code = WORKER.replace(
        "time.sleep(600)", "while True:\n for n in (255, 256): file.write(Amount(n, n, n * 1000), Amount())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "calls")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with (tmp_path / "calls").open("r+b") as file, mmap.mmap(file.fileno(), 24) as mapped:
            numbers = memoryview(mapped).cast("q")
            block_until(lambda: numbers[2] >= 255)
            seen = {numbers[i] for _ in range(100_000) for i in range(3)}
            numbers.release()
    finally:
        process.kill()
        process.communicate()
    assert seen <= {255, 256}


def test_without_its_file_it_is_charged_its_lease(tmp_path: Path) -> None:
    account = Account(Budget(calls=100), workers=1)
    granted = account.ask(Ask("w", 1, Amount(), Amount(), Amount(40), True, "", str(tmp_path / "gone"))).granted
    account.bury()
    assert account.spent == granted


def test_another_node_is_asked_and_a_silent_one_counts_as_alive(tmp_path: Path) -> None:
    asked = []

    def used_by(node: str, path: str) -> Amount | None:
        asked.append((node, path))
        if node == "silent":
            raise Alive
        return None if node == "gone" else Amount(7)

    account = Account(Budget(calls=100), workers=3, node="here", used_by=used_by)
    for node in ("there", "gone", "silent"):
        account.ask(Ask(node, 1, Amount(), Amount(), Amount(10), True, node, "/path"))
    assert account.bury() == 2
    assert len(asked) == 3
    assert account.spent.calls >= 7 + 10
    assert account.leased.calls >= 10


async def test_a_dead_worker_s_lease_comes_back_to_those_who_wait(tmp_path: Path) -> None:
    budget = Budget(calls=10)
    account = Account(budget, workers=1)
    path = tmp_path / "calls"
    dead_worker(path)
    account.ask(Ask("dead", 1, Amount(), Amount(), Amount(10), True, "", str(path)))
    ledger = LeasedLedger(budget, sender(account), worker="w")
    result = await solve("q", model=ScriptedModel(["42"]), strategy=BestOfN(n=4), verifier=perfect, budget=ledger)
    assert result.usage.calls == 4
    assert account.lost == 1


async def test_a_lost_account_ends_the_waits_with_its_cause() -> None:
    async def send(ask: Ask) -> Grant:
        raise OSError("no such actor")

    ledger = LeasedLedger(Budget(calls=10), send, worker="w")
    with pytest.raises(BudgetExhausted):
        await solve("q", model=ScriptedModel(["42"]), strategy=BestOfN(n=2), verifier=perfect, budget=ledger)
    assert "no such actor" in str(ledger.failed)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_ledger_is_closed_while_it_draws_more(tmp_path: Path, lost: bool) -> None:
    """Regression: its file was closed before the hold that stands for the message, which is written down too."""
    account, answer = Account(Budget(calls=1000)), asyncio.Event()

    async def send(ask: Ask) -> Grant:
        if ask.number > 1:
            await answer.wait()
            if lost:
                raise OSError("no such actor")
        return account.ask(ask)

    async def leave(worker: str, spent: Amount) -> None:
        account.leave(worker, spent)

    ledger = LeasedLedger(Budget(calls=1000), send, leave, worker="w", file=OpenCalls(tmp_path / "calls"))
    await solve("q", model=ScriptedModel(["42"]), strategy=BestOfN(n=9), verifier=perfect, budget=ledger)
    ledger.wanted()
    closing = asyncio.create_task(ledger.aclose())
    await asyncio.sleep(0)
    answer.set()
    await asyncio.wait_for(closing, 60)
    assert (ledger.failed is not None) == lost and not any(ledger.held) and ledger.spent.calls == 9
    assert account.spent.calls == (0 if lost else 9) and not (tmp_path / "calls").exists()


async def test_an_overshoot_is_charged_and_what_is_left_stays_usable() -> None:
    budget = Budget(tokens=10_000)
    account = Account(budget, workers=1)
    ledger = LeasedLedger(budget, sender(account), worker="w")
    model = ScriptedModel(["42"], max_tokens=10, completion_tokens=300)
    for _ in range(5):
        await solve("q", model=model, strategy=BestOfN(n=1), verifier=perfect, budget=ledger)
    await ledger.return_idle()
    assert account.spent.tokens == 5 * 305
    assert account.leased == Amount()


def test_a_file_that_is_no_account_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(TTSError, match=r"a\.sqlite: it is not a file of this kind"):
        Account(Budget(calls=1), path)


def test_two_accounts_never_grant_from_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_ENDS_WITHIN", 0.05)
    one = Account(Budget(calls=10), tmp_path / "account")
    with pytest.raises(ConfigurationError, match="account: another process is writing to it"):
        Account(Budget(calls=10), tmp_path / "account")
    one.close()
    Account(Budget(calls=10), tmp_path / "account").close()
    (tmp_path / "other").write_bytes(b"no database" * 100)
    for _ in range(2):  # the error lets the lock go
        with pytest.raises(DataError, match="not a file of this kind"):
            Account(Budget(calls=10), tmp_path / "other")


async def test_what_is_not_on_disk_was_not_granted(tmp_path: Path) -> None:
    account = Account(Budget(calls=100), tmp_path / "a.sqlite", workers=1)
    db = account._file._db
    db.execute("PRAGMA query_only = 1")
    ask = Ask("w", 1, Amount(), Amount(), ONE)
    with pytest.raises(DataError, match=r"a\.sqlite: it may not be written"):
        account.ask(ask)
    db.execute("PRAGMA query_only = 0")
    granted = account.ask(ask)
    account.close()
    again = Account(Budget(calls=100), tmp_path / "a.sqlite", workers=1)
    assert again.leased == granted.granted


async def test_what_is_idle_comes_back_and_small_parts_do_not_ask_each_time() -> None:
    budget = Budget(calls=10_000)
    account = Account(budget, workers=1)
    ledger = LeasedLedger(budget, sender(account), worker="w")
    for _ in range(20):
        await solve("q", model=ScriptedModel(["42"]), strategy=BestOfN(n=4), verifier=perfect, budget=ledger)
        ledger.return_soon()
    assert account.messages < 20
    for _ in range(6000):
        if not any(account.leased):
            break
        await asyncio.sleep(0.01)
    assert account.leased == Amount()
    assert account.spent.calls == 80
