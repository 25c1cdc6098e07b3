"""How a stop rule is fitted to recorded runs, and what it promises."""
