"""Where programs of a model run: what the machine offers, and the processes in it."""
