"""One small local Ray for all of these tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# As the user's own settings would: nothing is written into the home folder, and nothing is reported.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

# Workers import this tree, and the tests' own modules, whoever is their driver.
ROOT = Path(__file__).parents[2]
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), str(ROOT / "integrations"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

SMALL = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False, "log_to_driver": False,
         "logging_level": logging.ERROR}  # fmt: skip


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray, ended with the session."""
    import ray

    from tts_plugins.distributed.connection import NAMESPACE

    ray.init(address="local", namespace=NAMESPACE, **SMALL)
    yield
    ray.shutdown()
