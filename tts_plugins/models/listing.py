"""Which models a server has."""

from __future__ import annotations

from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.secrets import cleaned, hidden, hidden_address
from tts_plugins.errors import TTSError
from tts_plugins.models._openai.clients import Clients
from tts_plugins.models._openai.error_mapping import translate


async def list_models(base_url: str, api_key: str | None = None, *, timeout: float = 15.0) -> list[str]:
    """Return the names of the models that an OpenAI-compatible server lists.

    Args:
        timeout: seconds for the whole call.

    Raises:
        ConfigurationError: no request can be sent to this address.
        ModelError: the server refuses, fails or is not there.
    """
    base_url, api_key = hidden_address(base_url), hidden(api_key)
    clients = Clients(base_url=base_url, api_key=api_key, client=None, timeout=timeout, owner="list_models")
    try:
        page = await (await clients.openai()).models.list()
        return [entry.id for entry in getattr(page, "data", None) or []]
    except TTSError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        raise translate(error, shown_address(base_url), clients.secrets) from cleaned(error, clients.secrets)
    finally:
        await clients.close()
