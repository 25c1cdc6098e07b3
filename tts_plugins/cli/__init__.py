"""The command line; it needs the extra `cli` (typer and rich).

`tts-plugins demo | solve | record | bench | report | calibrate | export | rollouts | train-verifier | doctor`.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import sys
import threading
import types
from collections.abc import Sequence
from contextlib import ExitStack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    0: done, with an answer; 1: an error; 2: a wrong option or setting; 3: the budget or the time ended before there
    was any answer; 130: interrupted before there was any answer, by Ctrl-C, SIGTERM or SIGHUP.
    """
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"tts-plugins: the command line needs {' and '.join(missing)}: pip install 'tts-plugins[cli]'\n"
        )
        return 1
    with ExitStack() as opened:
        _open_streams(opened)
        whole = arguments is None  # the program ends with this
        _end_on_signals(None if whole else opened)
        code = _main(sys.argv[1:] if arguments is None else arguments)
        if whole:
            _end_at_once_on_signals(code)
        return code


def _open_streams(opened: ExitStack) -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # The caller closed it (`>&-`), so Python has no object for it, and a write would fail.
            setattr(sys, name, opened.enter_context(open(os.devnull, "w")))  # noqa: SIM115 - it is entered
            opened.callback(setattr, sys, name, None)
        if (reconfigure := getattr(getattr(sys, name), "reconfigure", None)) is not None:
            reconfigure(errors="replace")  # a terminal that cannot show a character shows a "?"


def _end_on_signals(opened: ExitStack | None) -> None:
    """Treat SIGTERM, and SIGHUP of a terminal that closes, as Ctrl-C, so that they leave what there is."""
    # Where another handler is set, `nohup` or a program that runs us has said what to do.
    ending = [each for each in _signals("SIGTERM", "SIGHUP") if signal.getsignal(each) == signal.SIG_DFL]
    if ending and signal.getsignal(signal.SIGINT) == signal.SIG_IGN and sys.platform != "win32":
        # As shells have it for what a script starts with &. It stays without effect, but asyncio takes Ctrl-C, and
        # so SIGTERM, in hand only where the handler is Python's own: else it would come up in any line of code.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if opened is not None:
            opened.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
            opened.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
    for each in ending:
        signal.signal(each, _as_ctrl_c)
        if opened is not None:
            opened.callback(signal.signal, each, signal.SIG_DFL)


def _signals(*names: str) -> list[signal.Signals]:
    """Return those of these signals that this system has, and this thread may handle."""
    here = threading.current_thread() is threading.main_thread()
    return [signal.Signals[name] for name in names if here and name in signal.Signals.__members__]


def _as_ctrl_c(_: int, frame: types.FrameType | None) -> None:
    if callable(handler := signal.getsignal(signal.SIGINT)):  # whoever has Ctrl-C in hand now
        handler(signal.SIGINT, frame)


def _end_at_once_on_signals(code: int) -> None:
    """Let a further signal cut short the interpreter's wait for its threads, and not change the exit code."""
    for each in _signals("SIGINT", "SIGTERM", "SIGHUP"):
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, lambda *_: os._exit(code))
            # Python gives handlers up in its last steps, and the signal would then kill it.
            atexit.register(signal.signal, each, signal.SIG_IGN)


def _main(arguments: Sequence[str]) -> int:
    try:
        from tts_plugins.cli._app import run

        return run(arguments)
    except BrokenPipeError:
        return 1  # the reader of our output has gone (`| head`)
    except KeyboardInterrupt:  # before the command began, or after it has ended
        sys.stderr.write("tts-plugins: interrupted\n")
        return 130
    finally:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            # Discard what is still buffered, else Python complains at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
