"""Programs that read their input and write their output, as tests that the sandbox runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tts_plugins.errors import ConfigurationError

# Runs inside of the sandbox. Each test runs the program anew, as a script, with its own input and output.
_HARNESS = """
def run(stdin, stdout, _source=SOURCE):
    import io, os, sys
    from decimal import Decimal, InvalidOperation

    def same(wrote, wanted):
        ours, theirs = ([line.rstrip() for line in text.rstrip().split("\\n")] for text in (wrote, wanted))
        if ours == theirs:
            return True
        if [len(line.split()) for line in ours] != [len(line.split()) for line in theirs]:
            return False
        try:
            return all(a == b or Decimal(a) == Decimal(b) for a, b in zip(wrote.split(), wanted.split()))
        except InvalidOperation:
            return False

    kept, out = (sys.stdin, sys.stdout), io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    name = "stdin.txt"
    with open(name, "w", encoding="utf-8") as file:
        file.write(stdin)
    place = os.open(name, os.O_RDONLY)
    if place != 0:  # a program before may have closed it
        os.dup2(place, 0)
        os.close(place)
    os.unlink(name)
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"), out
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(_source, "<program>", "exec"), names)
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
    finally:
        sys.stdin, sys.stdout = kept
    wrote = out.buffer.getvalue().decode("utf-8", "replace")
    if not same(wrote, stdout):
        raise AssertionError(f"it wrote {wrote.rstrip()[:100]!r}")
"""


def harness(program: str) -> str:
    """A program for the sandbox that holds another one, and runs it for each test."""
    return _HARNESS.replace("SOURCE", repr(program), 1)


def as_tests(io: Sequence[tuple[str, str]]) -> list[str]:
    """The tests that go with a harness."""
    return [f"run(stdin={given!r}, stdout={wanted!r})" for given, wanted in io]


def check_io(io: object) -> None:
    """Raise unless it is a list of pairs of texts, or a function, which is asked later.

    Raises:
        ConfigurationError: it is neither, or is empty.
    """
    if io is None or callable(io):
        return
    pairs = io if isinstance(io, Sequence) and not isinstance(io, str) else ()
    if not pairs or not all(_is_pair(each) for each in pairs):
        raise ConfigurationError(f"CodeTests: io={str(io)[:80]!r} must be a list of (stdin, stdout), both texts")


def _is_pair(each: object) -> bool:
    return isinstance(each, Sequence) and len(each) == 2 and all(isinstance(part, str) for part in each)
