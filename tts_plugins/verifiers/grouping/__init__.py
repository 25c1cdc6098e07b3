"""Which answers mean the same, beyond their keys: by math-verify, by a model, or by embeddings."""
