"""JSON over HTTP for whoever sends requests: pools of connections, proxies, TLS, event streams, and what can fail."""
