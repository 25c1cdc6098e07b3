"""One chat completion of an OpenAI-compatible server: client, request, stream, errors."""
