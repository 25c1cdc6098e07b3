"""What goes between the driver and its workers, as bytes. Ray would name only its own mapper in an error."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from tts_plugins.engine.many import Work
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.options import Factory

Job = tuple[int, Any]
NOTHING_ENDED = pickle.dumps([])


def pickled_work(work: Work) -> bytes:
    """Pickle what workers need.

    Raises:
        ConfigurationError: names the part that cannot be pickled, and what to do.
    """
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        settings = getattr(work, "settings", None) or vars(work)
        for name, value in settings.items():
            try:
                cloudpickle.dumps(value)
            except Exception as cause:
                kind = type(value).__name__
                fix = f"give a recipe: {name}=Factory({kind}, …), which makes it there"
                if isinstance(value, Factory):
                    kind = repr(value)
                    fix = "let what it calls take plain values or further factories, and make the rest there"
                raise ConfigurationError(
                    f"RayEngine: {name}={kind} cannot be pickled, so no worker gets it ({cause}); {fix}"
                ) from cause
        raise ConfigurationError(
            f"RayEngine: the work cannot be pickled, and so not sent to workers ({error})"
        ) from error


def pickled_jobs(jobs: Sequence[Job]) -> bytes:
    """Pickle jobs; also those with classes of the driver's own script, which workers do not have.

    Raises:
        ConfigurationError: names the first that cannot be pickled.
    """
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(jobs))
    except Exception as error:
        for job in jobs if len(jobs) > 1 else ():
            pickled_jobs([job])
        raise ConfigurationError(
            f"RayEngine: problem {jobs[0][0]} cannot be pickled, and so not sent to a worker ({error}); pass plain data"
        ) from error


def pickled_outcomes(ended: list[tuple[int, Any]]) -> bytes:
    """Pickle outcomes; one that cannot be is replaced by an error that says so."""
    try:
        return pickle.dumps(ended, protocol=5)
    except Exception:  # noqa: BLE001 - whatever an object of the user raises; below it is found which
        from ray import cloudpickle

        sent = []
        for number, value in ended:
            try:
                cloudpickle.loads(cloudpickle.dumps(value))
                sent.append((number, value))
            except Exception as error:  # noqa: BLE001 - as above
                reason = f"what job {number} came to cannot be sent: {type(error).__name__}: {error}"
                sent.append((number, TTSError(reason + "; return plain data, or do what you need inside the job")))
        return bytes(cloudpickle.dumps(sent))


def unpickled_outcomes(sent: bytes) -> list[tuple[int, Any]]:
    """Return what a worker has sent.

    Raises:
        TTSError: an object of the user's cannot be unpickled.
    """
    try:
        ended: list[tuple[int, Any]] = pickle.loads(sent)
    except Exception as error:
        raise TTSError(
            f"RayEngine: what a worker sent cannot be unpickled here ({type(error).__name__}: {error}); return plain "
            "data, or do what you need inside the job"
        ) from error
    return ended
