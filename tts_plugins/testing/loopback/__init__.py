"""A real OpenAI-compatible server on a loopback port, that counts, keeps time and fails to order.

    with LoopbackServer(reply="42", latency=0.05) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0)
        ...
        server.counts.peak, server.counts.completion_tokens, server.requests[0].body

It runs in a thread with its own event loop, so a test's loop may be blocked; with `process=True` in a child process, so
that a benchmark measures the client's CPU alone. By hand: `python -m tts_plugins.testing.loopback '{"latency": 0.05}'`
prints its address and serves until its stdin ends.

Where a reply has to be byte by byte that of some real server, `RawServer` sends what it is given.
"""

from tts_plugins.testing.loopback._faults import Fault, Faults, Plan
from tts_plugins.testing.loopback._meter import Counts, Recorded
from tts_plugins.testing.loopback._providers import ProviderReply, provider_replies
from tts_plugins.testing.loopback._raw import RawReply, RawRequest, RawServer, event_stream
from tts_plugins.testing.loopback._replies import Replies, Reply, echo, seeded
from tts_plugins.testing.loopback._settings import Options, Settings
from tts_plugins.testing.loopback._wire import USAGES
from tts_plugins.testing.loopback.server import LoopbackServer

__all__ = [
    "USAGES", "Counts", "Fault", "Faults", "LoopbackServer", "Options", "Plan", "ProviderReply", "RawReply",
    "RawRequest", "RawServer", "Recorded", "Replies", "Reply", "Settings", "echo", "event_stream", "provider_replies",
    "seeded",
]  # fmt: skip
