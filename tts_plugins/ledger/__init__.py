"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread."""

from tts_plugins.ledger._account import Ledger
from tts_plugins.ledger._hold import Hold
from tts_plugins.ledger._wait_queue import Ticket

__all__ = ["Hold", "Ledger", "Ticket"]
