"""The process that holds llama.cpp: it starts xllamacpp's server and says where it listens.

It is run as a script, only by `server.py`. It reads its settings as one JSON line, writes one JSON line
({"address"} or {"error"}), and lives until its standard input closes: it ends with its parent, even if that is killed.
It imports nothing of this package: a child that computes needs none of it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def parameters(settings: dict[str, Any]) -> Any:
    """Return xllamacpp's parameters for `settings`."""
    import xllamacpp

    wanted = xllamacpp.CommonParams()
    wanted.model.path = settings["path"]
    wanted.model_alias = {os.path.basename(settings["path"]).removesuffix(".gguf")}  # else replies name the whole path
    wanted.n_parallel = settings["slots"]
    wanted.n_ctx = settings["context"] * settings["slots"]
    for threads in (wanted.cpuparams, wanted.cpuparams_batch):
        threads.n_threads = settings["threads"]
    if settings["embeddings"]:
        wanted.embedding = True
        pooling = {"mean": "LLAMA_POOLING_TYPE_MEAN", "last": "LLAMA_POOLING_TYPE_LAST"}[settings["embeddings"]]
        wanted.pooling_type = getattr(xllamacpp.llama_pooling_type, pooling)
        # Else texts of different lengths that are computed together are cut into pieces of equal length, and a mean is
        # that of the last piece alone: one text got vectors with a cosine of .85 to .97 between them.
        wanted.kv_unified = True
        wanted.n_batch = wanted.n_ubatch = settings["context"]  # a text is pooled whole, and refused if it is longer
    wanted.verbosity = settings["verbosity"]
    wanted.ui = False
    wanted.cors_origins = "http://127.0.0.1"  # not "*": no web page may use the model
    wanted.fit_params = False  # fitting to GPU memory loads the model twice: 3.4 s instead of 0.6 s to start
    wanted.cache_ram_mib = 0  # the default keeps up to 8 GB of old prompts in memory; slots keep theirs anyway
    return wanted


def main() -> None:
    # llama.cpp writes to both standard streams: keep the pipe for ourselves and send the rest to the log.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    try:
        import xllamacpp

        server = xllamacpp.Server(parameters(settings))
        said = {"address": server.listening_address}
    except (ImportError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    answer.write(json.dumps(said) + "\n")
    answer.flush()
    if "address" in said:
        sys.stdin.read()
    # Not a return: destroying a server that still generates never ends (xllamacpp 2026.10).
    os._exit(0)


if __name__ == "__main__":
    main()
