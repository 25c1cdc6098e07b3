"""Which strategy is best for which question and budget, measured on recorded runs."""
