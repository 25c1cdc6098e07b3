"""JSON over HTTP for models and verifiers: pools of connections, proxies, TLS, event streams, and what can fail."""
