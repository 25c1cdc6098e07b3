"""What recorded runs tell: summaries, matched budgets, reliability, held-out halves, FLOPs."""
