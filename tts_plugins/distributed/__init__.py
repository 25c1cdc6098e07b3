"""Solves on more than one machine, on Ray (`pip install 'tts-plugins[ray]'`)."""
