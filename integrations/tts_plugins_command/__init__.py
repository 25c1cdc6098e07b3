"""The command `tts-plugins`, as it is installed.

It stands outside of `tts_plugins`, whose import takes a part of a second: Ctrl-C is heard quietly there too.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run `tts_plugins.cli.main`, and return its exit code; 130 if Ctrl-C comes before that has begun."""
    try:
        from tts_plugins.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("tts-plugins: interrupted\n")
        return 130
    return run()
