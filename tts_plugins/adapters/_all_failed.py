"""What an adapter raises when every candidate failed: the error that the bare framework would have raised.

Frameworks dispatch on the types of exceptions: `with_fallbacks(exceptions_to_handle=…)`, `with_retry`, LangGraph's
`RetryPolicy`, and every `except openai.RateLimitError`. So where all candidates failed for reasons of one kind, the
first original exception is raised, with all its attributes; `AllCandidatesFailed` is its `__cause__`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence

from tts_plugins._calls.charging import causes_of
from tts_plugins._internal.values import attribute_of
from tts_plugins.errors import AllCandidatesFailed, ModelError, TTSError


def raised_for(failed: AllCandidatesFailed | ModelError) -> Exception:
    """The exception that an adapter raises for a search in which no candidate came through.

    Returns the first candidate's original exception if the originals of all candidates share a class below `Exception`.
    It gets a note that says how many failed and why, and an `AllCandidatesFailed` as its `__cause__`, which in turn
    keeps the cause that the exception had before. Otherwise returns `failed` itself: the candidates failed for
    different reasons, or for a reason of this package, such as an output that is None.

    No reference cycle is left: the error in `failed` that wraps the returned exception no longer refers to it.

    Args:
        failed: what `solve` raised; a `ModelError` where the first failure was fatal for all others.
    """
    errors = failed.errors if isinstance(failed, AllCandidatesFailed) else (failed,)
    originals = [original for error in errors if (original := original_of(error)) is not None]
    if not originals or len(originals) < len(errors) or not _share_a_kind(originals):
        return failed
    first = originals[0]
    cause = failed if isinstance(failed, AllCandidatesFailed) else AllCandidatesFailed(str(failed), errors)
    # Those of searches inside, and of earlier calls, are left out.
    before = next((each for each in causes_of(first.__cause__) if not isinstance(each, AllCandidatesFailed)), None)
    for error in (cause, *errors):
        if error is cause or original_of(error) is first:
            # It must not lead back to the exception whose cause it becomes.
            error.__cause__ = error.__context__ = error.__traceback__ = None
    cause.__cause__ = before
    object.__setattr__(first, "__cause__", cause)  # as `raise … from` does, past what its class may say to attributes
    note = f"{cause} ({_counted(originals)})"
    if note not in (attribute_of(first, "__notes__") or ()):
        with contextlib.suppress(Exception):  # a class of exceptions may refuse new attributes
            first.add_note(note)
    return first


def original_of(error: BaseException) -> Exception | None:
    """The exception that user code, a framework or a client raised; None if the error is this package's own."""
    foreign = next((cause for cause in causes_of(error) if not isinstance(cause, TTSError)), None)
    return foreign if isinstance(foreign, Exception) else None


def _share_a_kind(errors: Sequence[Exception]) -> bool:
    """Whether they have a class in common that says more than `Exception` does."""
    kinds = set(type(errors[0]).__mro__).intersection(*(type(error).__mro__ for error in errors))
    return any(issubclass(kind, Exception) and kind is not Exception for kind in kinds)


def _counted(errors: Iterable[Exception]) -> str:
    counts = Counter(type(error).__name__ for error in errors)
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common())
