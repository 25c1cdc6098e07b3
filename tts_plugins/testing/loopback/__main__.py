"""`python -m tts_plugins.testing.loopback`: the server by hand, and the child process of `process=True`."""

from __future__ import annotations

import json
import sys

from tts_plugins.testing.loopback._hosts import serve_until_eof
from tts_plugins.testing.loopback._settings import Settings


def main() -> None:
    """Serve with settings from the first argument, or from a line of JSON on stdin; end with stdin."""
    if len(sys.argv) > 1:
        settings, port = Settings.from_json(json.loads(sys.argv[1])), 0
    else:
        order = json.loads(sys.stdin.readline())
        settings, port = Settings.from_json(order["settings"]), order["port"]
    serve_until_eof(settings, port)


if __name__ == "__main__":
    main()
