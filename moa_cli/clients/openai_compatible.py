"""The client of any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, quote_plus, urlencode

from moa_cli.clients import sse_decoder
from moa_cli.clients.completion import whole
from moa_cli.clients.error_mapper import (
    ErrorMapper,
    call_in_base_url,
)
from moa_cli.clients.exchange import Exchange
from moa_cli.clients.http.transport import Connections, HttpAnswer, HttpTransport, load
from moa_cli.clients.missed_thoughts import missed_thought
from moa_cli.clients.refused_fields import (
    IMAGES,
    NO_FIELDS,
    SYSTEM,
    format_asked,
    in_words,
    is_lasting,
    is_missed,
    refused_field,
    refused_format,
)
from moa_cli.clients.transport import (
    ErrorObject,
    Refused,
    TimedOut,
    TooLong,
    TransportError,
    Unreadable,
)
from moa_cli.clients.usage import Bounds, usage_from
from moa_cli.clients.wire_messages import wire_messages
from moa_cli.core import debug_log
from moa_cli.core.endpoints import NO_KEY, Delta, ModelInfo, Request
from moa_cli.core.errors import (
    BadResponse,
    ClientError,
    MoAError,
    ModelNotFound,
    RequestRefused,
    ToolsUnsupported,
)
from moa_cli.core.paths import replacing
from moa_cli.core.quirks import Quirk
from moa_cli.models.model_list import read_list
from moa_cli.models.providers import is_loopback
from moa_cli.models.table import DEFAULT_PROVIDER, Provider
from moa_cli.version import __version__

_HEADERS = {"User-Agent": f"moa/{__version__}"}
_MODELS_TIMEOUT = 15.0
_ANTHROPIC_VERSION = "2023-06-01"
# The field that is not sent to an endpoint with this quirk.
_UNSENT: Mapping[Quirk, str] = {
    "no_stream_options": "stream_options",
    "no_temperature": "temperature",
    "no_top_p": "top_p",
    "no_seed": "seed",
}
_DRAIN_SECONDS = 0.2
# Seconds to wait for the end of a body after a complete JSON answer.
_REST_SECONDS = 5.0
# Most bytes of an answer in one piece, and of a stream. In a stream a token takes some hundred
# bytes.
_MOST_WHOLE, _MOST_STREAM = 64 << 20, 256 << 20
_JSON_ENDS = (b"}", b"]")
# An empty delta: the endpoint has accepted the request.
_TAKEN = Delta()
_SPACE = re.compile(r"\s*")
_Answer = TypeVar("_Answer")
_BLANKS = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Headers and query parameters of every request to an endpoint."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)


class OpenAICompatible:
    """The client of one endpoint; belongs to one event loop.

    provider: a provider with an address, which usually ends in /v1. key: called once, at the first
    request, in another thread; may raise a ClientError. headers: called before each completion, in
    the context of the caller; returns further headers to send. many_calls: whether many calls are
    in flight. Then all tokens that arrive together are one delta, because nobody watches single
    tokens. sdk_lists: whether Together's list of models is requested through its SDK, which takes
    0.4 s to load. on_unable: called with the id of a model that has refused images ("sees") or
    tools. on_left_out: called with the id of a model and the name of a field that it does not
    accept and that is no longer sent.
    """

    def __init__(
        self,
        provider: Provider,
        key: Callable[[], str],
        *,
        extras: Callable[[], Extras] | None = None,
        headers: Callable[[], Mapping[str, str]] | None = None,
        many_calls: bool = False,
        sdk_lists: bool = False,
        on_unable: Callable[[str, Literal["sees", "tools"]], None] = lambda model, what: None,
        on_left_out: Callable[[str, str], None] = lambda model, field: None,
    ) -> None:
        self._provider = provider
        self._base_url = base_url = provider.base_url or ""
        debug_log.add_url(base_url)
        self._completions = f"{base_url}/chat/completions"
        self._key = key
        self._headers = headers or dict
        self._quirks = quirks = provider.quirks
        self._unsent = frozenset(_UNSENT[quirk] for quirk in quirks if quirk in _UNSENT)
        self._own_extras = extras or Extras
        self._list_headers: Mapping[str, str | None] = {}
        self._query = ""
        self._errors = ErrorMapper(provider.name, base_url, provider.start_hint)
        self._many_calls = many_calls
        self._sdk_lists = sdk_lists
        self._on_unable = on_unable
        self._on_left_out = on_left_out
        # Connections to this machine are not kept: they cost nothing to open, and some servers
        # (llama.cpp's) close a connection right after a streamed answer. With a new connection for
        # each call, a closed connection always means a failed call. They are kept if many calls are
        # in flight, because new ones would use up all ports.
        self._connections = Connections(keep=many_calls or not is_loopback(base_url))
        self._opening: asyncio.Task[HttpTransport] | None = None
        # What each model has refused, or misses; and what no model of the endpoint accepts.
        self._refused: dict[str, set[str]] = {}
        self._never = frozenset([SYSTEM] if "no_system_role" in quirks else [])
        self._names: list[str] | None = None

    async def _transport(self) -> HttpTransport:
        opening = self._opening
        if opening is not None and opening.done() and not opening.exception():
            return opening.result()
        call = call_in_base_url(self._base_url)
        if call is not None:
            raise RequestRefused(
                f"{self._errors.provider}: the base URL ends in {call}, which moa adds itself",
                hint=f"leave {call} out of the base URL",
            )
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(asyncio.to_thread(self._open))
        opening = self._opening
        # Not asyncio.shield: since Python 3.14, it prints the error of a call that was cancelled.
        await asyncio.wait([opening])
        return opening.result()

    def _open(self) -> HttpTransport:
        key = self._key()
        # The key "none" is not a secret: masking it would change answers that contain the word.
        self._errors.secret = "" if key == NO_KEY else key
        debug_log.add_secret(self._errors.secret)
        extras = self._own_extras()
        self._errors.more_secrets = (
            *debug_log.url_secrets(self._base_url),
            *extras.headers.values(),
            *self._secret_parameters(extras.query),
        )
        self._query = f"?{urlencode(extras.query)}" if extras.query else ""
        if self._provider.auth == "anthropic":
            self._list_headers = {
                "Authorization": None,
                "x-api-key": key,
                "anthropic-version": _ANTHROPIC_VERSION,
            }
        sent = {"api-key": key} if self._provider.auth == "api-key" and key != NO_KEY else {}
        own_names = {name.lower() for name in extras.headers}
        ours = {
            name: value
            for name, value in {**_HEADERS, **sent}.items()
            if name.lower() not in own_names
        }
        # A key that is sent in another header, or replaced by the user's own header, is not also
        # sent as a bearer token.
        bearer = "" if self._provider.auth == "api-key" or "authorization" in own_names else key
        headers = {**ours, **extras.headers}
        if self._errors.provider != DEFAULT_PROVIDER:
            return HttpTransport(self._base_url, bearer, headers, self._connections)
        from moa_cli.clients.together_sdk import TogetherTransport, custom_headers

        kind = TogetherTransport if self._sdk_lists else HttpTransport
        custom = custom_headers()
        self._errors.more_secrets += tuple(custom.values())
        return kind(self._base_url, bearer, {**custom, **headers}, self._connections)

    def _secret_parameters(self, query: Mapping[str, str]) -> Iterator[str]:
        """The query values that may be secrets, because of their names or because they came from
        variables, in the forms that an endpoint may send back."""
        settings = dict(self._provider.query)
        for name, value in query.items():
            if debug_log.names_secret(name) or settings.get(name) != value:
                yield from {value, quote_plus(value)}

    def _path(self, model: str) -> str:
        """The path for completions of the model, below the base URL."""
        place = ""
        if "deployment_path" in self._quirks:
            place = f"/deployments/{quote(model, safe='')}"
        return f"{place}/chat/completions{self._query}"

    async def warm(self) -> None:
        """Load the modules that a request needs, and open a connection for the next request. Errors
        are ignored: the request will report them.

        No connection to this machine is opened, because it takes no time and is not kept.
        """
        # In another thread, because loading takes 0.1 s while the user types.
        await asyncio.to_thread(load)
        if is_loopback(self._base_url):
            return
        with suppress(TransportError):
            await self._connections.warm(self._base_url)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The deltas of the completion as they arrive. Raises a ClientError; closing the generator
        closes the connection."""
        exchange = Exchange(self._completions)
        bounds = Bounds(4 * sum([len(m.content) for m in request.messages]), request.max_tokens)
        try:
            answer = await self._post(request, exchange)
            try:
                yield _TAKEN
                body = answer.chunks(_MOST_STREAM)
                first = await _first_bytes(body)
                # The first letter shows the kind of body, because the header may be wrong.
                if not first.startswith(b"data:") and _is_json(answer, first):
                    raw = await _rest_of_json(first, body)
                    exchange.add("body", data=raw.decode("utf-8", "replace"))
                    for delta in _read_whole(raw, request.model, bounds):
                        yield delta
                else:
                    if not first.startswith(b"data:"):
                        _check_kind(answer, first)
                    reader = sse_decoder.DeltaReader(
                        body,
                        model=request.model,
                        merged=self._many_calls,
                        first=first,
                        watch=exchange.watch,
                        bounds=bounds,
                        sized="content-length" in answer.headers,
                    )
                    while found := await reader.read():
                        for delta in found:
                            yield delta
                    if not answer.ended:
                        await _drain(body)
            finally:
                await answer.aclose()
        except MoAError as error:
            exchange.failed(error)
            raise
        except Exception as error:
            exchange.failed(error)
            if isinstance(error, Refused) and isinstance(error.body, dict):
                usage = usage_from(error.body, bounds)
                if usage is not None:
                    # The endpoint has refused the answer to the request, and bills it.
                    yield Delta(usage=usage)
            raise await self.mapped(error, request) from error
        except BaseException:
            exchange.add("cancelled")
            raise
        finally:
            if bounds.doubted:
                exchange.add("usage not believed", told=bounds.doubted)
        exchange.add("ended")

    async def _post(self, request: Request, exchange: Exchange) -> HttpAnswer:
        transport = await self._transport()
        refused = self._refused.get(request.model, set())
        headers = self._headers()
        path = self._path(request.model)
        while True:
            # A copy, because another call may add to the set while this one is in flight.
            unsent = frozenset(refused)
            body = self._body(request, unsent)
            if exchange.wanted:
                told = {"Authorization": "[key]", **_HEADERS} if self._errors.secret else _HEADERS
                exchange.add("request", headers={**told, **headers}, body=body)
            try:
                answer = await transport.post(path, body, headers)
                exchange.answered("response", answer.status, answer.headers)
                return answer
            except Refused as refusal:
                exchange.answered("refused", refusal.status, refusal.headers, refusal.body)
                wanted = refused_format(refusal, body)
                if wanted is not None and not is_lasting(refusal):
                    exchange.add("sent again", why="it does not take this format of the reply")
                    refused = refused | {wanted}
                    continue
                field, why = missed_thought(refusal), "misses"
                if field is None or field in unsent:
                    field, why = (
                        wanted or refused_field(refusal, body, request.extra),
                        "does not take",
                    )
                if field is None or field in unsent:
                    raise
                exchange.add("sent again", why=f"the model {why} the {field}")
                # Only now the model gets an entry: clients of a server may send any number of model
                # names.
                refused = self._refused.setdefault(request.model, set())
                refused.add(field)
                if field == IMAGES:
                    self._on_unable(request.model, "sees")
                elif wanted is None and is_missed(field, refused):
                    self._on_left_out(request.model, field)

    def _body(self, request: Request, refused: frozenset[str]) -> dict[str, Any]:
        quirks = self._quirks
        limits = ["max_tokens", "max_completion_tokens"]
        if "max_completion_tokens" in quirks:
            limits.reverse()
        limit = limits[1] if limits[0] in refused else limits[0]
        messages, extra = request.messages, self._extra(request)
        if extra and format_asked(extra) in refused:
            messages, extra = in_words(messages, extra)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": wire_messages(messages, refused | self._never),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": request.temperature,
            limit: request.max_tokens,
            "top_p": request.top_p,
            "random_seed" if "random_seed" in quirks else "seed": request.seed,
            **extra,
        }
        dropped = self._unsent
        if refused:
            dropped = dropped | (refused - {*limits, *NO_FIELDS})
        return {k: v for k, v in body.items() if v is not None and k not in dropped}

    def batch_body(self, request: Request) -> dict[str, Any]:
        """The body of a request for a batch file."""
        body = self._body(request, frozenset(self._refused.get(request.model, ())))
        return {k: v for k, v in body.items() if k not in ("stream", "stream_options")}

    async def read_batched(self, payload: dict[str, Any], request: Request) -> Delta:
        """The completion in the answer to a request of a batch file. Raises a ClientError."""
        bounds = Bounds(4 * sum([len(m.content) for m in request.messages]), request.max_tokens)
        delta, error = whole(payload, request.model, bounds)
        if error is None and not payload.get("choices"):
            error = ErrorObject(payload)
        if error is not None:
            raise await self.mapped(error, request) from error
        return delta

    async def get_json(self, path: str, seconds: float) -> object:
        """The parsed JSON at a path below the base URL. Raises a ClientError."""
        return await self._asked("GET", path, lambda transport, at: transport.get(at, seconds, {}))

    async def post_json(self, path: str, body: Mapping[str, Any], seconds: float) -> object:
        """The parsed JSON of the answer to a body that is sent. Raises a ClientError."""

        async def ask(transport: HttpTransport, at: str) -> object:
            async with asyncio.timeout(seconds):
                answer = await transport.post(at, body, {})
                return json.loads(await answer.read(_MOST_WHOLE))

        return await self._asked("POST", path, ask)

    async def send_batch_file(self, file: Path) -> object:
        """Send a file of requests; returns the parsed JSON of the answer. Raises a ClientError,
        OSError."""
        return await self._asked(
            "POST", "/files", lambda transport, at: transport.send_batch_file(at, file)
        )

    async def fetch_file(self, path: str, into: Path, seconds: float) -> None:
        """Download from a path below the base URL to a file. Raises a ClientError."""

        async def ask(transport: HttpTransport, at: str) -> None:
            async with asyncio.timeout(seconds):
                answer = await transport.open(at)
                try:
                    with replacing(into) as file:
                        async for piece in answer.chunks():
                            file.write(piece)
                finally:
                    await answer.aclose()

        await self._asked("GET", path, ask)

    async def _asked(
        self, method: str, path: str, ask: Callable[[HttpTransport, str], Awaitable[_Answer]]
    ) -> _Answer:
        """The answer to a request for anything but a completion. Raises a ClientError.

        ask: gets the path with the provider's query.
        """
        exchange = Exchange(f"{self._base_url}{path}")
        exchange.add("request", method=method)
        try:
            transport = await self._transport()
            query = self._query.replace("?", "&", 1) if "?" in path else self._query
            answer = await ask(transport, path + query)
        except (MoAError, OSError) as error:
            exchange.failed(error)
            if isinstance(error, TimeoutError):
                raise await self.mapped(TimedOut()) from error
            raise
        except Exception as error:
            exchange.failed(error)
            raise await self.mapped(error) from error
        exchange.add("ended")
        return answer

    def _extra(self, request: Request) -> Mapping[str, Any]:
        """The further fields of a request. Raises RequestRefused if the request asks for a web
        search and it is not known how the provider is asked for one."""
        if not request.web:
            return request.extra
        web = self._provider.web
        if web is None:
            provider = self._provider.name
            raise RequestRefused(
                f"{provider}: moa does not know how its models search the web",
                hint=f"set `web` under [providers.{provider}] in the settings, or leave `web` out"
                " of the profile",
            )
        extra = {**web, **request.extra}
        if "tools" in web and "tools" in request.extra:
            extra["tools"] = [*request.extra["tools"], *web["tools"]]
        return extra

    async def models(self) -> list[ModelInfo]:
        """The models of the endpoint, chat models first. Raises a ClientError."""
        models_path = self._provider.models_path
        exchange = Exchange(f"{self._base_url}{models_path}")
        exchange.add("request")
        try:
            transport = await self._transport()
            path = models_path + self._query
            listed = await transport.get(path, _MODELS_TIMEOUT, self._list_headers)
        except MoAError:
            raise
        except Exception as error:
            exchange.failed(error)
            raise await self.mapped(error) from error
        infos = read_list(listed)
        if infos is None:
            raise BadResponse(f"{self._errors.provider}: the list of models is not a list")
        exchange.add("ended", models=len(infos))
        return infos

    async def mapped(self, error: Exception, request: Request | None = None) -> ClientError:
        """Our error for an exception of a transport. request: the request, if it was one for a
        completion.

        A ModelNotFound gets the names most similar to the one asked for, if they can be had.
        """
        if isinstance(error, ValueError | RecursionError):
            # The answer is not JSON, or its JSON is nested too deeply.
            error = Unreadable()
        model = None if request is None else request.model
        found = self._errors.from_exception(error, model)
        if request is None or model is None:
            return found
        if isinstance(found, ToolsUnsupported):
            if not _speaks_of_tools(request):
                return RequestRefused(found.message)
            self._on_unable(model, "tools")
        moved = isinstance(error, Refused) and error.moved
        if not isinstance(found, ModelNotFound) or moved:
            return found
        if self._names is None:
            try:
                self._names = [info.id for info in await self.models()]
            except ClientError:
                self._names = []
        return self._errors.model_not_found(found.message, model, self._names)

    async def aclose(self) -> None:
        """Close all connections."""
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait([opening])
            # The calls have reported an error, or were cancelled. It is read, because asyncio would
            # print it otherwise.
            _ = opening.cancelled() or opening.exception()
        await self._connections.aclose()


def _speaks_of_tools(request: Request) -> bool:
    """Whether a request offers tools, or holds earlier tool calls."""
    return "tools" in request.extra or any(
        message.tool_calls or message.role == "tool" for message in request.messages
    )


def _is_json(answer: HttpAnswer, first: bytes) -> bool:
    """Whether a body with these first bytes is one piece of JSON, not a stream."""
    start = first.lstrip(_BLANKS)[:1]
    # A stream begins with the name of a field, or a comment.
    told = answer.content_type.partition(";")[0].strip().lower().endswith("json")
    return start in (b"{", b"[") or (told and start != b"" and start in b'-0123456789"nft')


def _check_kind(answer: HttpAnswer, first: bytes) -> None:
    """Raise BadResponse for a web page, Unreadable for a content encoding that was not decoded."""
    encoding = answer.headers.get("Content-Encoding", "")
    if encoding and b"" < first[:1] < b" ":
        raise Unreadable(encoding)
    kind = answer.content_type.partition(";")[0].strip().lower()
    if first.lstrip(_BLANKS).startswith(b"<") or (kind == "text/html" and not first.strip()):
        raise BadResponse("the endpoint answered with a web page, not with a completion")


def _read_whole(raw: bytes, model: str, bounds: Bounds) -> Iterator[Delta]:
    """The deltas of a completion that came in one piece.

    If it is an error, raises ErrorObject after the delta with the rest of the answer.
    """
    completions = _completions(raw)
    if completions is None:
        raise ErrorObject(json.loads(raw))
    if len(completions) > 1:
        lines = [("", json.dumps(completion)) for completion in completions]
        yield from sse_decoder.events_to_deltas(lines, model, bounds)
        return
    [payload] = completions
    delta, error = whole(payload, model, bounds)
    if error is None and not payload.get("choices"):
        error = ErrorObject(payload)
    if error is None or delta.usage or delta.text or delta.reasoning or delta.tool_calls:
        yield delta
    if error is not None:
        raise error


async def _first_bytes(body: AsyncIterator[bytes]) -> bytes:
    """The first piece of the body that is not only white space, without leading white space; b"" if
    there is none. Some endpoints send blanks for minutes to keep the connection alive."""
    async for piece in body:
        first = piece.lstrip(_BLANKS)
        if first:
            return first
    return b""


async def _rest_of_json(first: bytes, body: AsyncIterator[bytes]) -> bytes:
    """The whole body of one piece of JSON.

    If the JSON is complete, it is no error if the connection breaks, or stays open. Raises a
    TransportError, such as TooLong.
    """
    pieces, size, looked_at = [first], len(first), 0
    while True:
        may_be_whole = pieces[-1].rstrip().endswith(_JSON_ENDS) and len(pieces) != looked_at
        try:
            async with asyncio.timeout(_REST_SECONDS if may_be_whole else None):
                piece = await anext(body, None)
        except (TransportError, TimeoutError) as error:
            raw = b"".join(pieces)
            if may_be_whole and _is_whole(raw):
                return raw
            if isinstance(error, TransportError):
                raise
            looked_at = len(pieces)
            continue
        if piece is None:
            return b"".join(pieces)
        size += len(piece)
        if size > _MOST_WHOLE:
            raise TooLong(_MOST_WHOLE)
        pieces.append(piece)


def _is_whole(raw: bytes) -> bool:
    try:
        return bool(_completions(raw))
    except (ValueError, RecursionError):
        return False


def _completions(raw: bytes) -> list[dict[str, Any]] | None:
    """The JSON objects of a body: usually one, or one on each line for a stream of bare JSON lines.

    None if a value is not an object. Raises ValueError if the text is not JSON.
    """
    text = raw.decode("utf-8-sig", "replace").strip()
    decoder, at = json.JSONDecoder(), 0
    found: list[dict[str, Any]] = []
    while at < len(text):
        if text[at] != "{" and found:
            # The end mark of a stream, which may also follow a single complete answer.
            break
        value, at = decoder.raw_decode(text, at)
        if not isinstance(value, dict):
            return None
        found.append(value)
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    return found


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read the rest of a body, so that its connection can be used again."""
    # Only the end of the body follows the end mark, and it has usually arrived already.
    with suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in body:
                pass
