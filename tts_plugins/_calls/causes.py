"""The causes of errors, followed with care: an error may be its own cause, however far down. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def cause_for(found: BaseException, error: BaseException | None) -> BaseException | None:
    """Return the cause of `found`, which is raised in place of `error`: `error`, unless that leads back to `found`.

    An error of ours is raised again for what user code or a client made of it on its way. If it became its own cause,
    whoever follows causes would never end, and only the collector of cycles would free it.
    """
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if one is found:
            return found.__cause__
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            todo += [one.__cause__, one.__context__]
    return error
