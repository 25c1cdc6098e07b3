"""llama.cpp in a process of its own: weights, server, processor cores."""
