"""Paths that this server does not serve, and what a client that asks for one is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_TEXT_ONLY = "a mixture answers with text; this server offers no {}"
_STORES_NONE = "this server stores nothing between requests, so it has no {}"
_OLLAMA = "this server does not have Ollama's API: use OpenAI's, whose base URL ends in /v1"
_VERSION = "/v1"
# The reasons, by the beginning of the path.
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
    "/api/chat": _OLLAMA,
    "/api/embed": _OLLAMA,
    "/api/generate": _OLLAMA,
    "/api/show": _OLLAMA,
    "/api/tags": _OLLAMA,
    "/api/version": _OLLAMA,
}


def why_absent(path: str) -> str | None:
    """Why this server has no endpoint at a path; None if no reason is known."""
    return next((why for start, why in ABSENT.items() if path.startswith(start)), None)


def meant_path(path: str, known: Iterable[str]) -> str | None:
    """The path among `known` that a client means if its base URL is wrong: `/v1` is missing or
    there twice, or the URL is that of another server. None if no path fits."""
    asked = path.rstrip("/")
    ends = {own: own.removeprefix(_VERSION) for own in known if "{" not in own}
    return max((own for own, end in ends.items() if asked.endswith(end)), key=len, default=None)
