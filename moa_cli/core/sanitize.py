"""Removes everything from untrusted text that could control a terminal; visible text stays."""

import re

_STRING_LIMIT = 4096
_PARAMETER_LIMIT = 128

_CSI = rf"(?:\x1b\[|\x9b)[0-?]{{0,{_PARAMETER_LIMIT}}}+[ -/]{{0,8}}+"
# The body of a string sequence ends at any control character. So no body is scanned twice, and the
# cost is linear.
_STRING = rf"(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]{{0,{_STRING_LIMIT}}}+"
_DROPPED = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f"

_SUSPICIOUS = re.compile(rf"[{_DROPPED}\ud800-\udfff]")
_ACTIVE = re.compile(
    rf"(?P<newline>\r\n?)"
    rf"|{_CSI}[@-~]"
    rf"|{_STRING}(?:\x07|\x1b\\|\x9c)"
    rf"|\x1b[ -/]{{0,8}}+[0-~]"
    rf"|(?P<pair>[\ud800-\udbff][\udc00-\udfff])"
    rf"|(?P<surrogate>[\ud800-\udfff])"
    rf"|[{_DROPPED}]"
)
_UNFINISHED = re.compile(rf"(?:\r|[\ud800-\udbff]|\x1b[ -/]{{0,8}}+|{_CSI}|{_STRING}\x1b?)\Z")


class Sanitizer:
    """Sanitizes text that arrives in chunks, with the same result as `sanitize` for the whole text.

    It removes control sequences (CSI, OSC, DCS, SOS, PM, APC and shorter escapes, in 7 and 8 bits),
    control characters except newline and tab, bidirectional embeddings, overrides and isolates, and
    tag characters. CRLF and CR become a newline, a surrogate pair becomes its character, and half
    of a pair becomes U+FFFD.

    A sequence may lack its end: it meets a newline, another control character or the end of the
    text, or exceeds its limit. Then only the characters that introduce it are removed, and the
    rest is shown as text.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next chunk; return the text that is safe to show now."""
        if not self._held and not _SUSPICIOUS.search(text):
            return text
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._held = text[end:]
        return _ACTIVE.sub(_harmless, text[:end])

    def flush(self) -> str:
        """End the text; return what was held back because it might begin a sequence."""
        held, self._held = self._held, ""
        return _ACTIVE.sub(_harmless, held)


def sanitize(text: str) -> str:
    """Return `text` without anything that could control a terminal (see `Sanitizer`)."""
    return _ACTIVE.sub(_harmless, text) if _SUSPICIOUS.search(text) else text


def one_line(text: str, limit: int | None = None) -> str:
    """Return `text` sanitized, on one line, with single spaces, in at most `limit` characters."""
    line = " ".join(sanitize(text).split())
    if limit is None or len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…" if limit > 0 else ""


def _harmless(match: re.Match[str]) -> str:
    if match["newline"]:
        return "\n"
    if match["pair"]:
        character = match["pair"].encode("utf-16", "surrogatepass").decode("utf-16")
        return _ACTIVE.sub("", character)
    return "\ufffd" if match["surrogate"] else ""
