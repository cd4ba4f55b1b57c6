"""What other servers of the same APIs have, and this one has not."""

from __future__ import annotations

from collections.abc import Mapping

_TEXT_ONLY = "a mixture answers with text; this server offers no {}"
_STORES_NONE = "this server stores nothing between requests, so it has no {}"
# By the beginning of the path.
ABSENT: Mapping[str, str] = {
    "/v1/embeddings": _TEXT_ONLY.format("embeddings"),
    "/v1/moderations": _TEXT_ONLY.format("moderation"),
    "/v1/images/": _TEXT_ONLY.format("image generation"),
    "/v1/videos": _TEXT_ONLY.format("video generation"),
    "/v1/audio/": _TEXT_ONLY.format("audio"),
    "/v1/realtime": _TEXT_ONLY.format("audio"),
    "/v1/rerank": _TEXT_ONLY.format("ranking of documents"),
    "/v1/responses/": _STORES_NONE.format("responses to look up or to compact"),
    "/v1/conversations": _STORES_NONE.format("conversations"),
    "/v1/assistants": _STORES_NONE.format("assistants"),
    "/v1/threads": _STORES_NONE.format("threads"),
    "/v1/files": _STORES_NONE.format("files: send a file in its message"),
    "/v1/vector_stores": _STORES_NONE.format("vector stores"),
    "/v1/batches": _STORES_NONE.format("batches; `moa batch` answers many prompts"),
    "/v1/messages/batches": _STORES_NONE.format("batches; `moa batch` answers many prompts"),
}


def why_absent(path: str) -> str | None:
    """Why nothing is at a path; None if that needs no reason."""
    return next((why for start, why in ABSENT.items() if path.startswith(start)), None)
