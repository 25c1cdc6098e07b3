"""What all commands share: the two streams, errors in one line, files, and the bar of a download."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tts_plugins._internal.files import replacing
from tts_plugins._trace.wording import oneline, visible
from tts_plugins.bench.assignment import check_assignment
from tts_plugins.cli._arguments.options import OUTPUT
from tts_plugins.cli._display.error_messages import TYPED, code_of, words_of
from tts_plugins.errors import (
    ConfigurationError,
    DataError,
)
from tts_plugins.models.llama_cpp import Served
from tts_plugins.pools import Pool

_EMITTED: ContextVar[bool] = ContextVar("emitted", default=False)  # whether the command has printed its JSON object
EVERY = 5.0  # seconds between two lines of progress, if no terminal can show it live

Debug = Annotated[bool, OUTPUT("Show the traceback of an error.", "--debug")]
Json = Annotated[bool, OUTPUT("Print one JSON object to stdout, and nothing else.", "--json")]
Html = Annotated[Path | None, OUTPUT("Write every call into one HTML page.", "--html", metavar="FILE")]


def stdout() -> Console:
    """Return the console for results; without a terminal, lines stay whole, to be searched and copied."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, width=wide)


def stderr() -> Console:
    """Return the console for progress."""
    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a plain line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """Print an error on stderr, in one line."""
    say(f"tts-plugins: {oneline(text)}")


def warn_of(pool: Pool, path: object) -> None:
    """Warn if candidates seem to belong to other problems: all figures of such a pool are meaningless."""
    try:
        check_assignment(pool).raise_for_findings()
    except DataError as error:
        complain(f"warning: {str(error).replace('pool', str(path), 1)}")


def begin(arguments: Sequence[str]) -> None:
    """Begin a command: remember what was typed, and that nothing has been printed.

    Modules in the working directory can be named, as with `python -m`; they hide no installed one.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    TYPED.set(tuple(arguments))
    _EMITTED.set(False)


def emit(value: Any) -> None:
    """Print the JSON object of this command on stdout."""
    _EMITTED.set(True)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def emit_text(text: str) -> None:
    """Print a model's text on stdout: unchanged into a file or pipe; on a terminal with control codes made visible."""
    text = visible(text) if sys.stdout.isatty() else text
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def _plain(value: object) -> Any:
    dump = getattr(value, "model_dump", None)  # a pydantic object, such as an OpenAI message
    return dump(mode="json", exclude_none=True) if callable(dump) else str(value)


@contextmanager
def errors(debug: bool) -> Iterator[None]:
    """End the command with one line and an exit code, if an error or Ctrl-C comes out of the block."""
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", 130, "KeyboardInterrupt")
        raise typer.Exit(130) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):  # of tasks that ran side by side; the first to fail ended them
            first = first.exceptions[0]
        fail(words_of(first), code_of(first), type(first).__name__)
        raise typer.Exit(code_of(first)) from None


@contextmanager
def resumable(path: object) -> Iterator[None]:
    """Say what is kept, if Ctrl-C ends the block."""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        say(f"what is done is kept in {path}; the same command goes on")
        raise


def fail(text: str, code: int, kind: str) -> None:
    """Print an error on stderr, in one line; and as the JSON object on stdout, where --json was typed and none is."""
    complain(text)
    if "--json" in TYPED.get() and not _EMITTED.get():  # a program that reads stdout expects one object
        emit({"error": {"type": kind, "message": oneline(text), "exit_code": code}})


@contextmanager
def no_key_echo() -> Iterator[None]:
    """Keep the terminal from writing ^C into a live display, which would then be a line off."""
    try:
        import termios
    except ImportError:  # Windows, which does not echo it
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    changed = termios.tcgetattr(sys.stdin)
    changed[3] &= ~termios.ECHOCTL
    termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def check_writable(path: Path | None, option: str) -> None:
    """Raise before the work if a file could not be written after it.

    Raises:
        ConfigurationError: its folder does not exist or takes no files, or something there is not a file.
    """
    if path is None:
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ConfigurationError(f"{option} {path}: the folder {folder} does not exist; make it first")
    if path.exists() and not path.is_file():
        # It is replaced as a whole: a folder cannot be, and a device such as /dev/null must not be.
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise ConfigurationError(f"{option} {path}: that is {kind}; give the name of a file")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # permissions alone are not enough, as for /proc or a full disk
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigurationError(
            f"{option} {path}: the folder {folder} cannot be written ({why}); choose another"
        ) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in one step: it is whole, or as it was before.

    Raises:
        DataError: it cannot be written.
    """
    # A model's text may hold characters that UTF-8 cannot encode.
    data = content.encode("utf-8", errors="replace") if isinstance(content, str) else content
    with replacing(path) as made:
        made.write_bytes(data)


class Download:
    """Progress of the embedded weights' first fetch: a bar in a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bar: Progress | None = None
        self._reported = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show bytes done and bytes in all; nothing is shown before the first."""
        if self._quiet:
            return
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = Progress(
                    TextColumn("fetching the embedded model, once"), BarColumn(None), DownloadColumn(),
                    TransferSpeedColumn(), TimeRemainingColumn(), console=self._console, transient=True,
                )  # fmt: skip
                self._bar.start()
                self._bar.add_task("weights", total=total)
            self._bar.update(self._bar.task_ids[0], completed=done)
        elif time.monotonic() - self._reported > EVERY:
            self._reported = time.monotonic()
            say(f"fetching the embedded model, once: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def start_local(download: Download, *models: object) -> None:
    """Start those of the models that are local, on the main thread, where Ctrl-C ends a download at once.

    Raises:
        WeightsError, MissingExtraError: one cannot be had or started.
    """
    try:
        for model in models:
            if isinstance(model, Served):
                model.start()
    finally:
        download.stop()
