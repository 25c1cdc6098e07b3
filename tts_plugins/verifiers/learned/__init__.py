"""A verifier that is trained on labelled steps: features, head, file."""
