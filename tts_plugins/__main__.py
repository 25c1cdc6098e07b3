"""`python -m tts_plugins` is `tts-plugins`."""

import sys

from tts_plugins.cli import main

if __name__ == "__main__":
    sys.exit(main())
