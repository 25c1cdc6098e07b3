"""What every part of the package may use: checks of settings, threads, signatures, errors of HTTP, token counts."""
