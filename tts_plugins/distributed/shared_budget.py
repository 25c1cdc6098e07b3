"""One budget for all workers of a cluster, in a named actor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from tts_plugins._internal.files import expanded
from tts_plugins.budget import Budget
from tts_plugins.distributed._actors import AccountActor, node_id
from tts_plugins.distributed.account import Account
from tts_plugins.distributed.connection import NAMESPACE, membership, ray_module
from tts_plugins.errors import ConfigurationError, TTSError

_GONE_WITHIN = 10.0  # seconds, for a process that was killed
_ANSWERS_WITHIN = 60.0  # seconds, a restart of its process included


class SharedBudget:
    """An account that workers of a cluster draw on; make it in the driver, after `ray.init`. It can be pickled.

    Args:
        budget: the limits of all workers together; None for an account that only counts.
        path: an SQLite file on this machine, which the account is restored from: what was spent before counts.
        workers: how many workers there are to be. Each is granted that part of half of what is free.

    Raises:
        TTSError: the file cannot be used, or another account is open on it.
        BudgetExhausted: nothing is left of the limits.
    """

    def __init__(self, budget: Budget | None, *, path: str | Path | None = None, workers: int = 1) -> None:
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"SharedBudget: budget={budget!r} is not a Budget; pass Budget(calls=32), or None")
        ray = ray_module()
        self.limits = None if budget is None else budget.to_dict()
        self.name = f"tts-plugins-account-{uuid.uuid4().hex[:12]}"
        self._folder: str | None = None
        if path is None:  # restored from a file all the same, where the actor's process dies
            self._folder = tempfile.mkdtemp(prefix="tts-plugins-account-")
            path = Path(self._folder) / "account.sqlite"
        path = expanded(path).resolve()
        _check(budget, path)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id(), soft=False)
        self._joined = membership()
        self.actor = (
            ray.remote(AccountActor)
            .options(name=self.name, namespace=NAMESPACE, num_cpus=0, max_restarts=-1, max_task_retries=-1,
                     scheduling_strategy=here)
            .remote(self.limits, str(path), workers)
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.limits, self.name, self.actor)

    def figures(self) -> dict[str, Any]:
        """Return what is spent and leased, and how many messages there were since the account's process started."""
        found: dict[str, Any] = self._ask("figures")
        return found

    def settled(self) -> dict[str, Any]:
        """Return the figures once nobody spends any more: a lease that nobody can account for is spent."""
        end = time.monotonic() + _GONE_WITHIN
        while True:
            self._ask("bury")
            figures = self.figures()
            if not any(figures["leased"]) or time.monotonic() > end:
                return {**figures, "spent": figures["spent"].plus(figures["leased"])}
            time.sleep(0.05)  # a process that was killed is gone in a moment

    async def keep_answering(self, first: float, every: float, within: float) -> None:
        """Restart the account's process whenever it hangs; messages to it are then sent again. Return if it is lost.

        Args:
            first: seconds that it has to start in.
            every: seconds between looks.
            within: seconds that it has to answer in.

        Raises:
            TTSError: it hangs, and cannot be restarted.
        """
        process = None
        while True:
            try:
                async with asyncio.timeout(first if process is None else within):
                    process = (await self.actor.figures.remote())["process"]
            except TimeoutError as error:
                if process is None or not _killed_here(process):
                    raise TTSError(f"RayEngine: the account of the budget did not answer for {within:.0f} s") from error
            except ray_module().exceptions.RayError:
                return  # as those who ask it are told
            await asyncio.sleep(every)

    def _ask(self, method: str) -> Any:
        if membership() != self._joined:  # to call the actor would start a new Ray here
            raise TTSError("this process has left its cluster, as by ray.shutdown()")
        return ray_module().get(getattr(self.actor, method).remote(), timeout=_ANSWERS_WITHIN)

    def close(self) -> None:
        """End the account's process; a file that was named stays."""
        with contextlib.suppress(ray_module().exceptions.RayError, TTSError):
            self._ask("close")
        if membership() == self._joined:
            ray_module().kill(self.actor)
        if self._folder is not None:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)


def _again(limits: dict[str, Any] | None, name: str, actor: Any) -> SharedBudget:
    made = SharedBudget.__new__(SharedBudget)
    made.limits, made.name, made.actor, made._folder, made._joined = limits, name, actor, None, membership()
    return made


def _killed_here(process: int) -> bool:
    """Kill the account's process, which Ray would ask to end itself; return whether it was there."""
    try:
        if b"AccountActor" not in Path(f"/proc/{process}/cmdline").read_bytes():
            return False
        os.kill(process, signal.SIGKILL)
    except OSError:
        return False
    return True


def _check(budget: Budget | None, path: Path) -> None:
    """Raise what the actor would, which Ray would wrap in a text about actors."""
    account = Account(budget, path)
    try:
        account.bury()
        account.check_left(str(path))
    finally:
        account.close()
