"""The embedded model's process: llama.cpp behind an OpenAI-compatible server on loopback.

Run as a child by `clients.local.client`, never by hand. It reads one JSON line from standard input
(model path, key, sizes), answers with one JSON line (address or error), and ends when standard
input ends. Standard input ends with the parent, even if that is killed.

It is a separate process, because loading holds the GIL, and because a crash of the native code must
not end the conversation.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import IO, Any

_DECODE_THREADS = 1


def main() -> None:
    answers = _own_stdout()
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        server = _serve(asked)
    except (ImportError, OSError) as error:
        _answer(answers, {"error": "runtime", "message": str(error)})
        os._exit(1)
    except Exception as error:
        _answer(answers, {"error": "model", "message": str(error)})
        os._exit(1)
    _answer(answers, {"address": server.listening_address})
    threading.Event().wait()


def _own_stdout() -> IO[str]:
    """Keep standard output for the answers, and discard what native code prints to it."""
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return os.fdopen(kept, "w", encoding="utf-8")


def _answer(answers: IO[str], values: dict[str, str]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    # Not sys.exit: destroying a server that is loading can dead-lock.
    os._exit(0)


def _serve(asked: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked["path"]
    params.model_alias = {asked["alias"]}
    # By default the server requires no key and allows requests from any web page.
    params.api_keys = [asked["key"]]
    params.cors_origins = ""
    params.endpoint_slots = False
    params.ui = False
    params.verbosity = -1
    params.n_parallel = asked["parallel"]
    params.n_ctx = asked["context"] * asked["parallel"]
    # With a shared cache, one call that is too long would make all calls fail.
    params.kv_unified = False
    # Small batches, because a cancelled call is noticed only between two batches.
    params.n_batch = params.n_ubatch = 128
    params.cache_ram_mib = 0
    params.warmup = False
    params.cpuparams.n_threads = _DECODE_THREADS
    params.cpuparams_batch.n_threads = min(2, os.cpu_count() or 1)
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
