"""Where the solves of a command run: here, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tts_plugins.budget import Budget
from tts_plugins.cli._arguments.options import panel
from tts_plugins.cli._display.console import say
from tts_plugins.engine.many import Engine
from tts_plugins.errors import ConfigurationError

MACHINES = panel("Machines")
EngineName = Annotated[
    str,
    MACHINES(
        "Where solves run: in this process, or on a Ray cluster, whose workers make the model and the verifier "
        "anew: files and environment variables that are named must be there too.",
        "--engine",
        metavar="local|ray",
    ),
]
Address = Annotated[
    str | None,
    MACHINES(
        "The cluster's head, host:port, or auto; a cluster of its own on this machine if left out.", metavar="HOST:PORT"
    ),
]
Workers = Annotated[int, MACHINES("Worker processes, each with --concurrency.", min=1)]


@dataclass(frozen=True, kw_only=True)
class EngineGroup:
    """Where the solves run."""

    engine: EngineName = "local"
    address: Address = None
    workers: Workers = 2

    def make(self, concurrency: int, *, budget: Budget | None = None, account: Path | None = None) -> Engine | None:
        """Make the engine, and join its cluster; None for this process.

        Raises:
            ConfigurationError: it is not known, options do not go together, or nothing answers at the address.
            MissingExtraError: `ray` is not installed.
        """
        if self.engine not in ("local", "ray"):
            raise ConfigurationError(f"--engine {self.engine} is not known; use local or ray")
        if self.engine == "local":
            if self.address is not None:
                raise ConfigurationError("--address is for --engine ray; add it, or leave the address out")
            return None
        from tts_plugins.distributed import RayEngine
        from tts_plugins.distributed.connection import connect

        connect(self.address)  # here, on the main thread, where Ctrl-C ends the wait for it
        return RayEngine(self.address, workers=self.workers, in_flight=concurrency, budget=budget, account=account)


def say_repeated(engine: Engine | None) -> None:
    """Say what a cluster's deaths have cost, if there were any."""
    stats = getattr(engine, "stats", None)
    if stats is not None and stats.workers_lost:
        say(f"{stats.workers_lost} workers died; {stats.repeated} solves under way there may have been paid twice")
