"""Who waits for whom, on which threads, and what of it a forked child forgets."""
