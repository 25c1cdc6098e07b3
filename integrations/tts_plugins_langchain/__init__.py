"""Test-time scaling for LangChain: chains, chat models and agents that search, under a hard budget.

`TestTimeScaling` needs `langchain`, and is imported when it is asked for; the rest needs `langchain-core` alone.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tts_plugins.errors import MissingExtraError

try:
    from tts_plugins_langchain.caching import SampleCache
    from tts_plugins_langchain.chat_model import ScaledChatModel
    from tts_plugins_langchain.runnable import ScaledRunnable, scale
except ImportError as error:
    if (error.name or "").split(".")[0] != "langchain_core":
        raise
    raise MissingExtraError("tts_plugins_langchain needs langchain: pip install 'tts-plugins[langchain]'") from error

if TYPE_CHECKING:
    from tts_plugins_langchain.middleware import TestTimeScaling

__all__ = ["SampleCache", "ScaledChatModel", "ScaledRunnable", "TestTimeScaling", "scale"]
try:
    _agents = find_spec("langchain") is not None
except (ImportError, ValueError):
    _agents = False
if not _agents:  # so that `import *` works with langchain-core alone; type checkers, which read the list, see it whole
    globals()["__all__"] = [name for name in __all__ if name != "TestTimeScaling"]


def __getattr__(name: str) -> Any:
    if name != "TestTimeScaling":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from tts_plugins_langchain.middleware import TestTimeScaling
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("langchain", "langgraph"):
            raise
        raise MissingExtraError("TestTimeScaling needs langchain: pip install 'tts-plugins[langchain]'") from error
    return TestTimeScaling
