"""What goes into a runnable and what comes out of it: messages, prompts, graphs."""
