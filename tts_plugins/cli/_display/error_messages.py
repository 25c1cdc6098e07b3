"""An error in the words of the command line: options instead of Python's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    CandidateError,
    ConfigurationError,
    DataError,
    DeadlineExceeded,
    LowConfidence,
    MissingExtraError,
    ModelNotFound,
    QuotaExhausted,
    TTSError,
    UnknownPriceError,
    WeightsError,
)

TYPED: ContextVar[Sequence[str]] = ContextVar("typed", default=())  # the command line


def words_of(error: BaseException) -> str:
    """Return what is said of it, in one line."""
    if isinstance(error, OSError) and not isinstance(error, TTSError):
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}; check the file's name, its folder and your permissions"
        return f"{error}"  # of our own output: a full disk is not a defect
    if not isinstance(error, TTSError):
        return f"this should not have happened: {type(error).__name__}: {error}; --debug shows where"
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    text = str(error)
    if isinstance(error, ConfigurationError):
        text = with_options(_OPTION.sub(_as_option, text))
    return " ".join([text or type(error).__name__, *hints])


def with_options(text: str) -> str:
    """Return a message of the engine that says which option to give, where it says which argument to pass."""
    for words, fix in _FIXES:
        text = words.sub(fix, text)
    return text


def code_of(error: BaseException) -> int:
    """Return the exit code of a failure: one for each kind, as docs/cli.md lists them."""
    if isinstance(error, AllCandidatesFailed):  # of the first cause, where that says more
        cause = error.__cause__
        return 5 if cause is None or isinstance(cause, AllCandidatesFailed) else max(code_of(cause), 4)
    if isinstance(error, OSError) and error.filename is not None:
        return 6
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), 1)


def _as_option(match: re.Match[str]) -> str:
    owner, name, value = match["owner"], match["name"].replace("_", "-"), match["value"]
    option = f"--{'budget-' if owner == 'Budget' else ''}{name}"
    given = any(text == option or text.startswith(f"{option}=") for text in TYPED.get())
    return f"{option} {value} " if given else match[0]


# Messages name the arguments of Python functions; here these are options, if they were given as such.
_OPTION = re.compile(
    r"^(?P<owner>\w+): (?P<name>temperature|max_tokens|n|attempts|concurrency|calls|tokens|usd|seconds|base_url|host|"
    r"timeout)=(?P<value>\S+) "
)
_FIXES = (
    (re.compile(r"pass verifier=…, or use SelfConsistency"), "give --verifier, or --strategy self-consistency"),
    (re.compile(r"pass answer=… with a function that reads them"), "give --answer, such as --answer text"),
    (re.compile(r"set tenants= or key_env=, or allow_open=True"), "give --tenants or --key-env, or --allow-open"),
    (re.compile(r"say (any_\w+)=True"), r"add ,\1=true to --strategy compute-optimal:file=…"),
)
# The first that fits: a missing package is a wrong setting by its class, and a used-up account is a failed model.
_CODES: Sequence[tuple[tuple[type[BaseException], ...], int]] = (
    ((BudgetExhausted, DeadlineExceeded), 3),
    ((MissingExtraError,), 7),
    ((ConfigurationError,), 2),
    ((AuthenticationFailed, QuotaExhausted), 4),
    ((CandidateError,), 5),
    ((DataError, WeightsError), 6),
    ((LowConfidence,), 8),
)
_HINTS: Mapping[type[TTSError], str] = {
    UnknownPriceError: "(here: --price IN,OUT, or --larger-model-price IN,OUT)",
    AuthenticationFailed: "(here: --api-key-env NAME)",
    ModelNotFound: "(here: `tts-plugins doctor --base-url URL` lists the models)",
}
