"""What the terminal shows: progress, results, errors."""
