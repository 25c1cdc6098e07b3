"""Who may call, what each may spend, and where that is kept."""
