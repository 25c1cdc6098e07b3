"""What the words of a command line mean: options, strategies, verifiers, models, estimates."""
