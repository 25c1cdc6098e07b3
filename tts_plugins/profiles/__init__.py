"""Named bundles of settings, so that how much is spent is decided where an application is configured.

A profile stands in `[tool.tts-plugins.profiles.NAME]` of pyproject.toml, in `[profiles.NAME]` of tts-plugins.toml, or
in environment variables; each overrides those before it, field by field:

    [tool.tts-plugins.profiles.careful]
    strategy = { type = "best-of-n", n = 16 }
    verifier = "my_package.checks:is_valid"
    budget = { tokens = 20000, seconds = 30 }
    seed = 0

    TTS_PLUGINS_PROFILES__CAREFUL__STRATEGY__N=8
    TTS_PLUGINS_PROFILES__CAREFUL__BUDGET__USD=0.05

TTS_PLUGINS_PROFILE=careful makes it the profile of every solve and wrapper that is given none. A profile fills what is
not set otherwise.
"""

from tts_plugins.profiles._load import load_profile, profile_names, profile_sources
from tts_plugins.profiles._make import Profile

__all__ = ["Profile", "load_profile", "profile_names", "profile_sources"]
