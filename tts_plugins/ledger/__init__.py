"""The account: nothing is spent that was not reserved first, on any thread."""

from tts_plugins.ledger._balance import Balance
from tts_plugins.ledger._hold import NOTHING, Hold
from tts_plugins.ledger._ledger import Ledger
from tts_plugins.ledger._ticket import Ticket

__all__ = ["NOTHING", "Balance", "Hold", "Ledger", "Ticket"]
