"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread."""

from tts_plugins.ledger._account import Ledger, Ticket
from tts_plugins.ledger._hold import NOTHING, Hold

__all__ = ["NOTHING", "Hold", "Ledger", "Ticket"]
