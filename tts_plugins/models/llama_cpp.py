"""The embedded llama.cpp: which weights it serves, where they are kept, and on how many cores it computes."""

from tts_plugins.models._llama_cpp.cpu_cores import default_threads, usable_cores
from tts_plugins.models._llama_cpp.served_model import EMBEDDED, Served
from tts_plugins.models._llama_cpp.weights import NAME, Progress, cache_folder

__all__ = ["EMBEDDED", "NAME", "Progress", "Served", "cache_folder", "default_threads", "usable_cores"]
