"""Test-time scaling for DSPy: any module, searched concurrently under a hard budget, that optimisers can compile."""

from tts_plugins.errors import MissingExtraError

try:
    from tts_plugins_dspy._calls.versions import check_version

    check_version()
    from tts_plugins_dspy._calls.interception import cover, cover_later
    from tts_plugins_dspy._calls.progress_bars import allow_side_by_side
    from tts_plugins_dspy._calls.scope import keep_configured
    from tts_plugins_dspy._outputs.withheld import Withheld, metadata_of
    from tts_plugins_dspy.lm import ScaledLM
    from tts_plugins_dspy.module import BestOfN, Refine, Scaled
except ImportError as error:
    if (error.name or "").split(".")[0] != "dspy":
        raise
    raise MissingExtraError("tts_plugins_dspy needs dspy: pip install 'tts-plugins[dspy]'") from error

cover()
cover_later()
keep_configured()
allow_side_by_side()
__all__ = ["BestOfN", "Refine", "Scaled", "ScaledLM", "Withheld", "metadata_of"]
