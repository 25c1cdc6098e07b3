"""What once never returned, each as a program for a process of its own with a time limit.

A program passes if it ends within the limit with status 0 and prints `ok` last. The unit tests run the same programs.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks._rows import Row

ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds; each takes about one on an idle machine

_HEAD = """
import asyncio, atexit, os, sys, threading, time, warnings, weakref
from concurrent.futures import ThreadPoolExecutor
warnings.simplefilter("ignore")
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve, solve_sync
from tts_plugins.errors import BudgetExhausted, ConfigurationError, TTSError
from tts_plugins.models import CallableModel
from tts_plugins.testing import ScriptedModel

def say(word):  # print may be gone when this runs
    os.write(1, word.encode() + b"\\n")

async def later(content):
    await asyncio.sleep(0)
    return "a"

def one():
    sync = solve_sync("q", model=CallableModel(lambda content: "a"), strategy=BestOfN(n=2), verifier=lambda text: 1.0)
    return sync.text + solve_sync("q", model=CallableModel(later), strategy=SelfConsistency(n=2)).text

def end():
    try:
        say("ok" if one() == "aa" else "wrong")
    except BaseException as error:
        say("ok" if isinstance(error, (RuntimeError, ImportError, TTSError)) else repr(error))

def child(work, seconds=20):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException as error:
            say(repr(error))
            os._exit(2)
    for _ in range(int(seconds / 0.05)):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"

def in_flight(model, **settings):
    "A solve on another thread that is under way when this returns."
    thread = threading.Thread(target=solve_sync, args=("q",), kwargs={"model": model, **settings}, daemon=True)
    thread.start()
    time.sleep(0.3)
"""

_AT_EXIT = """
class Late:
    def __del__(self):
        end()

_late = Late()
atexit.register(lambda: globals().pop("_late"))
"""

SCRIPTS: Mapping[str, str] = {
    "a solve in an atexit handler": "one()\natexit.register(end)\n",
    "a solve in an atexit handler that was registered first": "",  # made below: it comes before the imports
    "a solve in weakref.finalize": "one()\nlate = set()\nweakref.finalize(late, end)\n",
    "a solve in __del__ at exit": _AT_EXIT + "one()\n",
    "a first solve in __del__ at exit": _AT_EXIT,
    "a fork while a limiter's places are taken": """
model = CallableModel(lambda content: time.sleep(30) if os.getpid() == parent else "a", concurrency=2)
parent = os.getpid()
in_flight(model, strategy=SelfConsistency(n=4))
say("ok" if child(lambda: solve_sync("q", model=model, strategy=SelfConsistency(n=4)).text == "a") == 0 else "bad")
""",
    "a fork while an account is held": """
account, slow = Ledger(Budget(calls=4)), ScriptedModel(["a"], latency=30)
in_flight(slow, strategy=SelfConsistency(n=4), budget=account)

def work():
    try:
        solve_sync("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=account)
    except ConfigurationError as error:
        return "process" in str(error) and one() == "aa"

say("ok" if child(work) == 0 else "bad")
""",
    "forks while solves start and end on other threads": """
stop = threading.Event()

def busy():
    while not stop.is_set():
        one()

threads = [threading.Thread(target=busy, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
ends = [child(lambda: one() == "aa") for _ in range(20)]
stop.set()
say("ok" if ends == [0] * 20 else repr(ends))
""",
    "a fork while another thread is in the middle of an import": """
import importlib, pathlib, tempfile
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "slow_to_import.py").write_text("import time; time.sleep(1.0); value = 1")
    sys.path.insert(0, folder)
    threading.Thread(target=importlib.import_module, args=("slow_to_import",), daemon=True).start()
    time.sleep(0.3)
    say("ok" if child(lambda: importlib.import_module("slow_to_import").value == 1 and one() == "aa") == 0 else "bad")
""",
    "a nested solve through an executor of the user's, on a full account": """
account = Ledger(Budget(calls=6))
executor = ThreadPoolExecutor(4)

def outer(content):
    inner = {"model": ScriptedModel(["a"]), "strategy": SelfConsistency(n=2), "budget": account}
    return executor.submit(solve_sync, "inner", **inner).result().text

try:
    solve_sync("q", model=CallableModel(outer), strategy=SelfConsistency(n=8), budget=account)
except TTSError:
    pass
say("ok" if account.open_holds == 0 and account.spent.calls <= 6 else str(account))
""",
    "the same with two of them, by submit and by map": """
executor, accounts = ThreadPoolExecutor(3), []

def inner(number):
    model = ScriptedModel(["a"])
    return asyncio.run(solve("inner", model=model, strategy=SelfConsistency(n=1), budget=accounts[-1])).text

def submitted(content):
    return [f.result() for f in [executor.submit(inner, i) for i in range(2)]][0]

def mapped(content):
    return list(executor.map(inner, range(2)))[0]

for function in (submitted, mapped):
    accounts.append(Ledger(Budget(tokens=300)))
    model = CallableModel(function, max_tokens=5, concurrency=5)
    try:
        solve_sync("q", model=model, strategy=SelfConsistency(n=6), budget=accounts[-1])
    except TTSError:
        pass
say("ok" if all(a.open_holds == 0 and a.spent.tokens <= 300 for a in accounts) else repr(accounts))
""",
    "the same two levels deep, each with an executor of its own": """
for calls in (3, 6, 12):
    account, first, second = Ledger(Budget(calls=calls)), ThreadPoolExecutor(3), ThreadPoolExecutor(2)

    def submitted(executor, model):
        settings = {"model": model, "strategy": SelfConsistency(n=2), "budget": account}
        return executor.submit(solve_sync, "inner", **settings).result().text

    middle = CallableModel(lambda content: submitted(second, ScriptedModel(["a"])))
    try:
        solve_sync(
            "q", model=CallableModel(lambda content: submitted(first, middle)), strategy=SelfConsistency(n=3),
            budget=account)
    except TTSError:
        pass
    assert account.open_holds == 0 and account.spent.calls <= calls, account
say("ok")
""",
    "the same from a coroutine": """
account = Ledger(Budget(calls=6))

async def outer(content):
    inner = {"model": ScriptedModel(["a"]), "strategy": SelfConsistency(n=2), "budget": account}
    work = lambda: solve_sync("inner", **inner).text
    return await asyncio.get_running_loop().run_in_executor(None, work)

try:
    solve_sync("q", model=CallableModel(outer), strategy=SelfConsistency(n=8), budget=account)
except TTSError:
    pass
say("ok" if account.open_holds == 0 and account.spent.calls <= 6 else str(account))
""",
    "the same by what lies between a coroutine and the threads that it waits for": """
from concurrent.futures import as_completed, wait
import anyio.to_thread
executor, semaphores = ThreadPoolExecutor(2), {}

def one_at_a_time(kind):
    return semaphores.setdefault((kind, asyncio.get_running_loop()), kind(1))  # the loops live as long as this

async def gathered(work):
    return (await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3))))[0]

async def grouped(work):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.to_thread(work)) for _ in range(2)]
    return tasks[0].result()

async def waited(work):
    done, _ = await asyncio.wait([asyncio.create_task(asyncio.to_thread(work)) for _ in range(2)])
    return done.pop().result()

async def timed(work):
    return await asyncio.wait_for(asyncio.shield(asyncio.to_thread(work)), 1e6)

async def first(work):
    for each in asyncio.as_completed([asyncio.to_thread(work) for _ in range(2)]):
        return await each

async def by_turns(work):
    async with one_at_a_time(asyncio.Semaphore):
        return await asyncio.to_thread(work)

async def by_anyio(work):
    return await anyio.to_thread.run_sync(work, limiter=one_at_a_time(anyio.CapacityLimiter))

def all_of(work):
    return [each.result() for each in wait([executor.submit(work) for _ in range(3)]).done][0]

def completed(work):
    return [each.result() for each in as_completed([executor.submit(work) for _ in range(3)])][0]

def nested(way, account):
    def work():
        return solve_sync("inner", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=account).text

    async def coroutine(content):
        return await way(work)

    model = CallableModel(coroutine if asyncio.iscoroutinefunction(way) else lambda content: way(work))
    try:
        solve_sync("q", model=model, strategy=SelfConsistency(n=3), budget=account)
    except TTSError:
        pass
    assert account.open_holds == 0 and account.spent.calls <= account.budget.calls, (way, account)

for way in (gathered, grouped, waited, timed, first, by_turns, by_anyio, all_of, completed):
    for calls in (1, 3, 6):
        nested(way, Ledger(Budget(calls=calls)))
say("ok")
""",
    "a nested solve through an executor of the user's, at a server with one place": """
executor = ThreadPoolExecutor(4)

def outer(content):
    if content == "inner":
        return "a"
    return executor.submit(solve_sync, "inner", model=model, strategy=SelfConsistency(n=2)).result().text

model = CallableModel(outer, concurrency=1)
say("ok" if solve_sync("q", model=model, strategy=SelfConsistency(n=2)).text == "a" else "bad")
""",
    "nested solves that functions two deep wait for by asyncio.to_thread": """
def deeper(model, width):
    async def ask(content):
        strategy = SelfConsistency(n=width)
        return await asyncio.to_thread(lambda: solve_sync(content, model=model, strategy=strategy).text)
    return CallableModel(ask)
account = Ledger(Budget(calls=512))
model = deeper(deeper(ScriptedModel(["a"]), 2), 16)
result = solve_sync("q", model=model, strategy=SelfConsistency(n=16), budget=account)
say("ok" if (len(result.candidates), account.spent.calls, result.warnings) == (16, 512, ()) else repr(result))
""",
    "an asynchronous verifier under gevent": """
import gevent

async def check(problem, candidate):
    await asyncio.sleep(0.001)
    return 1.0

def work():
    return solve_sync("q", model=CallableModel(lambda content: "a"), strategy=BestOfN(n=3), verifier=check).text

greenlets = [gevent.spawn(work) for _ in range(4)]
gevent.joinall(greenlets)
say("ok" if [g.value for g in greenlets] == ["a"] * 4 and work() == "a" else "bad")
""",
    "functions of both kinds under eventlet": """
def work():
    return one()

say("ok" if [each.wait() for each in [eventlet.spawn(work) for _ in range(4)]] == ["aa"] * 4 else "bad")
""",
    "solves after gevent has patched what was imported": """
one()
import gevent.monkey
gevent.monkey.patch_all()
import gevent

def work():
    try:
        return one()
    except RuntimeError as error:
        return "before" in str(error)

greenlets = [gevent.spawn(work) for _ in range(3)]
gevent.joinall(greenlets)
say("ok" if [g.value for g in greenlets] == [True] * 3 else repr([g.value for g in greenlets]))
""",
    "an account and a place that a solve holds whose loop was closed": """
async def never(content):
    loop.stop()  # once the place is taken
    await asyncio.sleep(1e6)

account, calls = Ledger(Budget(calls=4)), []
model = CallableModel(lambda content: never(content) if content == "never" else "a", concurrency=1)
loop = asyncio.new_event_loop()
kept = loop.create_task(solve("never", model=model, strategy=SelfConsistency(n=3), budget=account))
loop.run_forever()
threading.Timer(0.5, loop.close).start()  # while the others wait
places = solve_sync("q", model=model, strategy=SelfConsistency(n=2))
try:
    room = solve_sync("q", model=model, strategy=SelfConsistency(n=4), budget=account).usage.calls
except BudgetExhausted:
    room = 0
say("ok" if places.text == "a" and account.spent.calls == 4 and account.open_holds == 0 else repr((room, account)))
""",
    "a fork in a function whose child returns from it": """
def wait_for(pid):
    for _ in range(400):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.05)
    os.kill(pid, 9)
    return "hung"

def sync(content):
    return wait_for(pid) if (pid := os.fork()) else sys.exit(7)

async def coroutine(content):
    return await asyncio.to_thread(wait_for, pid) if (pid := os.fork()) else "the child"

settings = {"strategy": SelfConsistency(n=2)}
ends = [solve_sync("q", model=CallableModel(function), **settings).text for function in (sync, coroutine)]
say("ok" if ends == ["7", "0"] else repr(ends))
""",
    "a solve in a signal handler while the loop that it interrupts has the only place": """
import signal

async def slow(content):
    await asyncio.sleep(0.3)
    return "a"

model, ends = CallableModel(slow, concurrency=1), []

def handle(number, frame):
    try:
        ends.append(solve_sync("q", model=model, strategy=SelfConsistency(n=2)).text)
    except RuntimeError as error:
        ends.append("a" if "signal handler" in str(error) else repr(error))

async def main():
    solving = asyncio.create_task(solve("q", model=model, strategy=SelfConsistency(n=2)))
    while not model_is_asked():
        await asyncio.sleep(0.001)
    signal.raise_signal(signal.SIGUSR1)
    return (await solving).text

def model_is_asked():
    from tts_plugins._calls.limiter import limiter_of
    return limiter_of(model).places.holders > 0

signal.signal(signal.SIGUSR1, handle)
say("ok" if asyncio.run(main()) == "a" and ends == ["a"] else repr(ends))
""",
    "a solve while its module is imported, whose function imports that module": """
import pathlib, tempfile
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "imported_application.py").write_text('''
from __main__ import *

def function(content):
    import imported_application
    return "a"

try:
    solve_sync("q", model=CallableModel(function), strategy=SelfConsistency(n=2))
except RuntimeError as error:
    said = str(error)
plain = one()
''')
    sys.path.insert(0, folder)
    import imported_application as made
    say("ok" if "import" in made.said and made.plain == "aa" else repr(vars(made)))
""",
    "solve_sync in a running loop, one of whose calls has the account's last room, or the only place": """
async def slow(content):
    await asyncio.sleep(0.3)
    return "a"

executor, model, ends = ThreadPoolExecutor(2), CallableModel(slow, concurrency=1), []

def by_executor(*args, **keywords):
    return executor.submit(solve_sync, *args, **keywords).result()

async def main(way, model, budget):
    solving = asyncio.create_task(solve("q", model=model, strategy=SelfConsistency(n=2), budget=budget))
    await asyncio.sleep(0.1)
    try:
        ends.append(way("q", model=model, strategy=SelfConsistency(n=2), budget=budget).text)
    except BudgetExhausted:
        ends.append("refused")
    ends.append((await solving).text)

for way in (solve_sync, by_executor):
    asyncio.run(main(way, model, None))
    asyncio.run(main(way, CallableModel(slow), Ledger(Budget(calls=2))))
say("ok" if ends == ["a", "a", "refused", "a"] * 2 else repr(ends))
""",
    "the first solve where no descriptor is left": """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")),) * 2)
account = Ledger(Budget(calls=4))
try:
    solve_sync("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=account)
except OSError as error:
    say("ok" if "ulimit -n" in str(error) and account.spent.calls == 0 else repr((error, account)))
""",
    "more functions than threads can be started": """
import resource
one()
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 600 * 2**20, resource.RLIM_INFINITY))
result = solve_sync(
    "q", model=CallableModel(lambda content: (time.sleep(0.05), "a")[1]), strategy=SelfConsistency(n=800))
say("ok" if len(result.candidates) + sum("thread" in w for w in result.warnings) >= 800 else repr(
    (len(result.candidates), result.warnings)))
""",
}


def program(name: str) -> str:
    """The whole program of a row."""
    if name.endswith("registered first"):
        return "import atexit\natexit.register(lambda: end())\n" + _HEAD + "one()\n"
    if "under gevent" in name:
        return "import gevent.monkey\ngevent.monkey.patch_all()\n" + _HEAD + SCRIPTS[name]
    if "under eventlet" in name:
        return "import warnings, eventlet\neventlet.monkey_patch()\n" + _HEAD + SCRIPTS[name]
    return _HEAD + SCRIPTS[name]


def run(name: str, limit: float = LIMIT) -> tuple[bool, str, float]:
    """Whether the program passed, what it said last, and the seconds that it took."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations"), os.environ.get("PYTHONPATH", "")])
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program(name)], capture_output=True, text=True, timeout=limit, check=False,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, "it did not end", time.monotonic() - started
    said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
    return done.returncode == 0 and said == "ok", said, time.monotonic() - started


def rows(short: bool) -> list[Row]:
    """A row for each program."""
    out = []
    for name in list(SCRIPTS)[: 2 if short else None]:
        if "eventlet" in name and importlib.util.find_spec("eventlet") is None:
            continue  # unlike gevent, it is no package that development needs
        passed, said, seconds = run(name)
        figures = {"seconds": seconds, "said": said}
        out.append(
            Row(number=0, what=f"ends: {name}", must="ok", ours=f"{said}, {seconds:.1f} s", met=passed, figures=figures)
        )
    return out
