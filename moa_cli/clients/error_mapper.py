"""The error mapper: turns failures at an endpoint into our errors, with hints.

This file knows no library: transports map their exceptions to ours (`clients.transport`). The
errors that an endpoint reports are distinguished by status code and words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from moa_cli.clients.completion import error_in
from moa_cli.clients.error_reading import WEB_PAGE, Said, read_error, read_refusal
from moa_cli.clients.retry_after import seconds_to_wait
from moa_cli.clients.transport import (
    BadAddress,
    BadSetting,
    Broken,
    ErrorObject,
    NoConnection,
    RedirectLoop,
    Refused,
    TimedOut,
    TooLong,
    Unreadable,
)
from moa_cli.core.errors import (
    AuthenticationFailed,
    BadResponse,
    ClientError,
    ClientTimeout,
    ConnectionLost,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    NoCredit,
    RateLimited,
    RequestRefused,
    ServerFailed,
    ToolsUnsupported,
)
from moa_cli.core.files.data_uris import without_data
from moa_cli.core.text import without_login
from moa_cli.models.table import DEFAULT_PROVIDER, OF_ANOTHER

_LONGEST = 300
# With these statuses a router may pass on an error of another provider, which has a status of its
# own.
_ROUTED = (400, 500, 502, 503)
# The statuses of an overloaded endpoint.
_OVERLOADED = (503, 529)
_CONTEXT = (
    r"exceed_context_size|context_length_exceeded|context (length|window|size)|maximum context"
    r"|(prompt|input)( is)? too (long|big|large)|too many (input )?tokens"
    r"|tokens?`? \+ `?max_(new_)?tokens|string_above_max_length|max_prompt_tokens"
    r"|(?<![_a-z])tokens?\b.{0,60} exceeds? the (max|limit|model)|exceeds the limit of \d+"
    r"|exceed(s|ed)? (the )?model('s)? token limit|maximum prompt length|exceed max_num_tokens"
    r"|longer than the (model's|maximum)|range of input length|reduce the length|超长|过长"
)
# A request that exceeds what may be sent in a minute. It is too large at any time.
_TOO_LARGE = r"request too large|tokens must be reduced"
_NO_MODEL = (
    r"model_not_found|model_not_available|model_not_supported|not a valid model|invalid.?model\b"
    r"|deploymentnotfound|modelnotfound|\b(unknown|no such)[ _]model|model_?not_?exist"
    r"|model not exist|模型不存在"
    r"|(model|endpoint|deployment)\b.{0,120}(does not exist|not found|is not available|no longer|"
    r"decommissioned|deprecated)|unable to access (non-serverless )?model"
    r"|no endpoints found for|n[o']t have access to (the |this )?model"
)
_NO_CREDIT = (
    r"insufficient(.user|.account)?.(quota|credit|balance|fund)|balance.{0,20}insufficient"
    r"|balance (is )?not enough|not enough balance|quota is not enough|key limit exceeded"
    r"|credit (limit|balance)|arrearage|欠费|余额不足|额度不足|额度已用尽"
    r"|(out of|no|not enough|more|add|any|purchase|all available) credits?\b"
    r"|exceeded_current_quota|freetieronly|exceeded your [\w ]{0,30}credits|enter a payment method"
    r"|billing_(hard_limit|not_active)|payment_required|payment required|spending limit"
    r"|prepa(id|yment).{0,40}(deplet|exhaust)|please (top up|recharge)"
)
_LIMITED = r"rate.?limit|requests? limit|too many requests|throttl"
_TOO_MANY = rf"{_LIMITED}|quota|resource_?exhausted|限流|频率"
_BAD_KEY = (
    r"(invalid|incorrect|missing|wrong|expired|no|not).{0,12}(api.?|access.?|subscription.?)key"
    r"|(api.?|access.?|subscription.?)key.{0,30}(invalid|incorrect|missing|expired|not valid)"
    r"|unauthori[sz]ed|unauthenticated|authentication.?(fail|error)|api_key_invalid"
    r"|invalid.{0,10}(token(?!s)|credential)|token (is )?(invalid|expired)|\bauth credentials"
)
_FILTERED = (
    r"content.?filter|content (management|safety) policy|content.?policy|responsibleaipolicy"
    r"|content.?moderation|requires moderation|moderation_blocked|flagged (for|as|by)"
    r"|was flagged|usage (guidelines|polic)|safety_check|safety (system|filter|polic)"
    r"|data_?inspection_?failed|inappropriate content|sensitive (content|words?|information)"
    r"|prohibited_content|guardrail_intervened|content exists risk|敏感|不安全"
)
_DATA_POLICY = r"data.(policy|retention|collection)|privacy settings|settings/privacy"
_REGION = (
    r"unsupported_country|(country|region|territory|location)\b.{0,40}\bnot (be )?"
    r"(supported|available|allowed)"
    r"|not (supported|available|allowed) in your (country|region|location)"
)
_NO_SYSTEM = (
    r"system.{0,3} (role|messages?|prompts?|instructions?).{0,20}not (be )?"
    r"(supported|allowed|enabled)"
    r"|(not|n't) support.{0,20}system (role|message|prompt|instruction)"
    r"|developer instruction is not enabled|roles must alternate"
    r"|only user(,| and) assistant (and tool )?roles|(unexpected|invalid|unknown) role.{0,5}system"
)
_TOOLS = (
    r"(?:tools|tool(?:[ _-]?(?:use|usage|calling)|[ -]calls?)|functions"
    r"|function[ _-]?(?:calls?|calling))"
)
# Says that a model cannot call tools at all. A refusal of `tool_choice`, `parallel_tool_calls` or
# `tools[0].strict` does not match, because it is only about one choice or form of tools.
_NO_TOOLS = (
    rf"(?<![\w.\[-]){_TOOLS}['\"`]?(?: (?:param\w*|field|argument|feature))? (?:(?:is|are) )?"
    r"(?:(?:not|isn't|aren't)(?: yet| currently)? (?:be )?"
    r"(?:supported|enabled|available|allowed|permitted|implemented|recogni[sz]ed)|unsupported)"
    rf"|(?:not|n't|cannot) (?:support|accept|take|handle|call|use) (?:the )?(?:use of )?['\"`]?"
    rf"{_TOOLS}(?![\w\[-]|\.\w)"
    rf"|\bno\b.{{0,40}} supports? {_TOOLS}\b|(?<![\w.]){_TOOLS}: extra inputs"
    r"|(?:unknown|unrecogni[sz]ed|unsupported|unexpected|extra)"
    r"(?: (?:request|param(?:eter)?|argument|field|name|property|keyword|supplied|input)s?)*:?"
    r" ['\"`]?"
    r"(?:tools|functions)(?![\w\[-]|\.\w)"
    r"|enable-auto-tool-choice|tool-call-parser|tools? param\w* requires"
    r"|(?:unexpected|invalid|unknown|unsupported) role.{0,5}\btool\b"
)
# The first pattern says that a model accepts no images. The second one says so unless the third one
# matches, too: then the refusal is about the format, size or address of this one image.
_NO_IMAGES = (
    r"image_url.{0,30}(is only supported|not supported|unsupported)|unknown variant .{0,3}image_url"
    r"|endpoints found that support image|at most 0 image|missing data required for image"
    r"|not a (multi-?modal|vision)|provide the mmproj|only (supports? )?text (content|input)"
    r"|content.{0,40}must be a string|content.{0,80}(should|must) be a valid string"
)
_NO_SIGHT = (
    r"(image|vision|multi-?modal)[\w -]{0,30}(not|n't) (be )?(supported|enabled|allowed|accepted)"
    r"|(not|n't|cannot) (support|accept|allow|process|handle|take)\w*[\w -]{0,40}"
    r"(image|vision|multi-?modal)"
    r"|(image|vision|multi-?modal)[\w -]{0,30}unsupported"
    r"|unsupported[\w -]{0,20} (image|vision|multi-?modal)"
)
_THIS_IMAGE = (
    r"format|mime|media.?type|too (large|big|many|small)|exceed|dimension|resolution|pixel"
    r"|download|fetch|decod|corrupt|base64|\burls\b|invalid image|image/\w+"
)
# The context, or the memory, of the server is full, so a retry would fail in the same way.
_FULL = (
    r"failed to decode|increas\w+ (the )?context size|context size has been exceeded"
    r"|context shift is disabled|too big compared to kv size"
)
_HINTS_IF_FULL = {
    _FULL: "the context of the server is full: start it with a larger one",
    r"requires more (system )?memory": "use a smaller model, or free memory on the server",
}
# The beginnings of reasons for a failed connection that a retry does not change.
_FINAL = ("unknown host", "refused", "TLS", "none within", "no name server")
_BASE_URL_HINT = "check the base URL; it usually looks like https://host/v1"
_CALL_PATHS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings")


def takes_no_system_role(words: str) -> bool:
    """Whether these words of an endpoint say that the model takes no system message."""
    return _says(_NO_SYSTEM, words)


def takes_no_images(status: int, words: str) -> bool:
    """Whether an endpoint's refusal says that the model takes no images, whatever they are."""
    # OpenRouter finds no endpoint (404), llama.cpp and Ollama fail (500).
    if status not in (400, 404, 415, 422, 500):
        return False
    return _says(_NO_IMAGES, words) or (_says(_NO_SIGHT, words) and not _says(_THIS_IMAGE, words))


def takes_no_tools(words: str) -> bool:
    """Whether these words of an endpoint say that the model cannot call tools."""
    return _says(_NO_TOOLS, words)


def call_in_base_url(base_url: str) -> str | None:
    """The path of a call, such as `/chat/completions`, at the end of a base URL, where it does not
    belong; None if there is none."""
    path = base_url.partition("?")[0].rstrip("/").lower()
    return next((call for call in _CALL_PATHS if path.endswith(call)), None)


def _says(pattern: str, words: str) -> bool:
    """Whether an endpoint's words match the pattern, ignoring case and line ends.

    The patterns are not compiled in advance: most calls meet no error, and compiling a pattern
    takes longer than a search with it.
    """
    return re.search(pattern, words, re.IGNORECASE | re.DOTALL) is not None


class ErrorMapper:
    """Maps the failures of one endpoint to our errors.

    secret: the key in use; it is removed from everything that the endpoint says, as are
    more_secrets: the user name and password of the address, the values of headers that the user
    set, and secret parameters.
    """

    def __init__(self, provider: str, base_url: str, start_hint: str | None = None) -> None:
        self.provider = provider
        self.secret = ""
        self.more_secrets: tuple[str, ...] = ()
        self._place = _place(base_url)
        self._start_hint = start_hint

    def clean(self, text: str) -> str:
        """`text` on one line, without the key, and not too long."""
        for secret in (self.secret, *self.more_secrets):
            if len(secret) >= 4:
                text = text.replace(secret, "[key]")
        text = " ".join(without_data(text).split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def from_exception(self, error: Exception, model: str | None) -> ClientError:
        """Our error for an exception of a transport. model: the requested model."""
        found: ClientError
        match error:
            case Refused():
                said = read_refusal(error.status, error.body)
                # The status that a router passes on decides, not the router's own.
                inner = said.status if error.status in _ROUTED else None
                found = self._refused(inner or error.status, said, model, error.headers)
                if error.moved:
                    address = re.sub(r"/(chat/completions|models)?/?(\?.*)?\Z", "", error.moved)
                    moved = self.clean(without_login(address))
                    found.hint = f"the base URL redirects: set it to {moved}"
                return found
            case ErrorObject():
                return self.from_payload(error.payload, model, begun=error.begun)
            case TimedOut():
                return ClientTimeout(
                    f"{self.provider}: no answer from {self._place} in time",
                    hint="check the network and the base URL",
                )
            case BadAddress():
                return RequestRefused(
                    f"{self.provider}: the base URL is not a web address", hint=_BASE_URL_HINT
                )
            case RedirectLoop():
                return RequestRefused(
                    f"{self.provider}: {self._place} redirects endlessly", hint=_BASE_URL_HINT
                )
            case NoConnection():
                return self._no_connection(error)
            case BadSetting():
                wrong = ConnectionLost(
                    f"{self.provider}: {self.clean(error.problem)}", hint=error.hint
                )
                wrong.retryable = error.retryable
                return wrong
            case Broken():
                return ConnectionLost(f"{self.provider}: the connection to {self._place} broke")
            case TooLong():
                return BadResponse(
                    f"{self.provider}: the answer exceeds {error.most >> 20} MB, and was cut off"
                )
            case Unreadable():
                found = BadResponse(f"{self.provider}: the answer could not be read")
                if error.encoding:
                    encoding = self.clean(error.encoding)
                    found.hint = f"its content encoding, {encoding}, could not be decoded"
                return found
        raised = self.clean(str(error)) or type(error).__name__
        return BadResponse(f"{self.provider}: {raised}")

    def _no_connection(self, error: NoConnection) -> ClientError:
        reason = error.reason
        found = ConnectionLost(
            f"{self.provider}: no connection to {self._place}" + (f" ({reason})" if reason else ""),
            hint=error.hint or self._start_hint or "check the network and the base URL",
        )
        # A wrong name, port or certificate is not corrected while a turn waits. After a timeout the
        # turn does not wait a second time.
        found.retryable = not reason.startswith(_FINAL)
        return found

    def from_payload(
        self, payload: object, model: str | None, *, begun: bool = False
    ) -> ClientError:
        """Our error for what an endpoint sent with a good status instead of a completion: an error
        object, or anything else.

        begun: whether the answer had begun. Then the endpoint had accepted the request and failed
        while it wrote the answer, whatever status the error names. So a retry may succeed.
        """
        said = read_error(payload)
        told = isinstance(payload, str) or (
            isinstance(payload, Mapping) and error_in(dict(payload))
        )
        if not said.message and not told:
            return BadResponse(f"{self.provider}: the answer is not a completion")
        message = said.message or said.code or "an error without a message"
        said = replace(said, message=message)
        status = said.status or _implied_status(said.words)
        if status is None:
            return self._failed(None, said, None)
        error = self._refused(status, said, model, {})
        if begun and type(error) is RequestRefused:
            return self._failed(None, said, None)
        return error

    def _refused(
        self, status: int, said: Said, model: str | None, headers: Mapping[str, str]
    ) -> ClientError:
        words = said.words
        message = self._message(said)
        text = f"{self.provider}: {message}"
        refusal = RequestRefused(f"{self.provider} refused the request ({status}): {message}")
        if _says(_DATA_POLICY, words):
            refusal.hint = "the provider's privacy settings of your account exclude this model"
            return refusal
        if _says(_FILTERED, words):
            return ContentFiltered(
                f"{self.provider}: the content filter refused the prompt: {message}",
                hint="rephrase the prompt, or ask another model",
            )
        # llama.cpp answers with 500 if its template does not support tools.
        if status in (400, 404, 422, 500, 501) and _says(_NO_TOOLS, words):
            return ToolsUnsupported(
                f"{model or self.provider} cannot call tools: {text}", hint=ToolsUnsupported.advice
            )
        too_long = _TOO_LARGE if status == 429 else _CONTEXT
        if status < 500 and status != 401 and _says(too_long, words):
            return ContextTooLong(
                text,
                hint="shorten the prompt, start a new conversation, or use fewer references",
            )
        if status == 402 or _says(_NO_CREDIT, words):
            # The word "payment" alone is not enough: "add a payment method to raise your rate
            # limit" does not mean that there is no credit.
            return NoCredit(
                f"{self.provider}: no credit left: {message}", hint="add credit to the account"
            )
        if _says(_REGION, words):
            refusal.hint = "the provider does not serve your region"
            return refusal
        if status == 404 and model is None:
            return RequestRefused(text, hint=_BASE_URL_HINT)
        if status not in (401, 429) and status < 500 and (status == 404 or _says(_NO_MODEL, words)):
            if re.search(r"no (endpoints found that|allowed providers)", words, re.IGNORECASE):
                return refusal
            return self.model_not_found(text, model or "", [])
        if status == 403 and WEB_PAGE in said.codes:
            refusal.hint = "a firewall or proxy answered with a web page, not the provider's API"
            return refusal
        if status == 403 and _says(_LIMITED, words):
            status = 429
        if status in (401, 403) or (status == 400 and _says(_BAD_KEY, words)):
            return AuthenticationFailed(
                f"{self.provider} refused the API key: {message}",
                hint=f"check the key; `moa doctor` shows which one is used for {self.provider}",
            )
        if status == 429 or (status in (400, 498) and _says(_TOO_MANY, words)):
            return RateLimited(
                f"{self.provider}: too many requests: {message}",
                hint="wait a moment, or use fewer proposers or a smaller --concurrency",
                retry_after=seconds_to_wait(
                    {**said.headers, **headers}, said.message, said.delays, limited=True
                ),
            )
        if status == 408:
            late = ClientTimeout(text)
            late.retryable = True
            return late
        if status == 413:
            return ContextTooLong(text, hint="shorten the prompt")
        if status >= 500:
            wait = seconds_to_wait(headers, said.message, said.delays, limited=False)
            return self._failed(status, said, wait)
        if takes_no_system_role(words):
            refusal.hint = (
                "this model takes no system message: leave out `system`, and set"
                ' `reference_placement = "user"`'
            )
        return refusal

    def _failed(self, status: int | None, said: Said, retry_after: float | None) -> ServerFailed:
        code = f" ({status})" if status is not None else ""
        failed = ServerFailed(
            f"{self.provider} failed{code}: {self._message(said)}", retry_after=retry_after
        )
        failed.overloaded = status in _OVERLOADED
        for full, hint in _HINTS_IF_FULL.items():
            if _says(full, said.words):
                failed.overloaded = failed.retryable = False
                failed.hint = hint
        return failed

    def _message(self, said: Said) -> str:
        """The endpoint's message, cleaned, with the name of the provider behind a router, unless
        the message names it."""
        message = re.sub(rf"\A{re.escape(self.provider)}\s*:\s*", "", said.message, flags=re.I)
        message = self.clean(message)
        provider = self.clean(said.provider or "")
        if provider and provider.lower() not in f"{message} {self.provider}".lower():
            message = f"{message} (from {provider})"
        return message

    def model_not_found(self, message: str, model: str, names: list[str]) -> ModelNotFound:
        """A ModelNotFound error with a hint that names the models most similar to `model`."""
        close = difflib.get_close_matches(model, names, n=3, cutoff=0.5)
        tail = model.rsplit("/", 1)[-1].lower()
        close += [name for name in names if tail and tail in name.lower() and name not in close]
        if close:
            prefix = "" if self.provider == DEFAULT_PROVIDER else f"{self.provider}:"
            hint = "did you mean " + ", ".join(f"`{prefix}{name}`" for name in close[:3]) + "?"
        else:
            hint = f"`moa models {self.provider}` lists its models"
            hint += "" if names else ", unless the base URL is wrong"
            hint += OF_ANOTHER if self.provider == DEFAULT_PROVIDER else ""
        return ModelNotFound(message, hint=hint)


def _place(base_url: str) -> str:
    """Host and port, without the user name and password that a URL may carry."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    host = host or base_url.rpartition("@")[2]
    return f"{host}:{port}" if port else host


def _implied_status(words: str) -> int | None:
    """The status that the words of an error object imply, for an object without a status."""
    if _says(_FULL, words):
        return None
    if any(
        _says(kind, words)
        for kind in (_NO_TOOLS, _CONTEXT, _NO_MODEL, _FILTERED, _REGION, _DATA_POLICY)
    ):
        return 400
    if _says(_NO_CREDIT, words) or _says(_TOO_MANY, words):
        return 429
    return 401 if _says(_BAD_KEY, words) else None
