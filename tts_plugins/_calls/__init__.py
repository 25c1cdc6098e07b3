"""One request: who may make it, what it reserves, what it is charged."""
