"""Chat: steps continued in an assistant's turn, revisions, templates."""
