"""A tool call: its turns, and its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)

from moa_cli.core.conversation import Conversation, Message, Proposal, Turn, Usage
from moa_cli.core.errors import UsageError
from moa_cli.core.events import Event, LayerFinished
from moa_cli.core.money import cost_value
from moa_cli.core.outcomes import losses, refusal_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.stream import Sink, TurnFold, deliver
from moa_cli.core.unique import unique_name
from moa_cli.engine import run_turn
from moa_cli.engine.forecast import foretold_stages
from moa_cli.profile import Profile, closing_text, short_name
from moa_cli.server.accesslog import Record
from moa_cli.server.auth import key_of
from moa_cli.server.errors import ApiError, from_turn, stopping
from moa_cli.server.keys import ANYBODY, SOLO, ClientKey
from moa_cli.server.mcp.arguments import read_arguments, tools
from moa_cli.server.mcp.progress import CallProgress, TurnProgress
from moa_cli.server.mixtures import Mixtures
from moa_cli.server.service import Service, Setup
from moa_cli.server.wires.moa_object import ledger
from moa_cli.version import __version__

# Seconds between two reports of progress. Some clients give up on a tool that is silent for some
# seconds.
_TICK_SECONDS = 2.0
_INSTRUCTIONS = (
    "Mixtures of language models. `ask` gives one reply, written from the answers of several"
    " models; `compare` shows such answers side by side."
)


@dataclass
class _ProfileCall:
    """A profile that is asked in a call. setup, key: those of the call's start. parent: the headers
    of the client's trace. label: the prefix of its lines of progress. proposals_only: whether no
    reply is wanted. error: why it gave no result."""

    name: str
    profile: Profile
    conversation: Conversation
    setup: Setup
    key: ClientKey
    parent: Mapping[str, str]
    label: str
    proposals_only: bool
    turn: Turn = field(default_factory=lambda: Turn(user=""))
    error: ApiError | None = None

    @property
    def reply(self) -> str | None:
        """The reply, or the words in which it was refused."""
        return None if self.error else refusal_of(self.turn) or self.turn.reply or ""


class ToolServer:
    """The tools of a service, for any number of clients; `server` is the SDK's."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.server: Server[Any] = Server(
            "moa",
            version=__version__,
            title="Mixture-of-Agents",
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(
        self, ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        mixtures, key = self._service.setup.mixtures, _key(ctx)
        known = {name: _about(mixtures.find(name).profile) for name in offered(mixtures, key)}
        return ListToolsResult(tools=tools(known))

    async def _call(
        self, ctx: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        record, own = _record(ctx, params.name)
        key = _key(ctx)
        try:
            with self._service.request() as setup:
                return await self._answer(ctx, params, record, setup, key)
        except UsageError as error:
            record.code = "invalid_value"
            return _failed(error.message)
        except ApiError as error:
            record.code = error.code
            return _failed(error.message, code=error.code)
        except asyncio.CancelledError:
            record.status = 499
            raise
        finally:
            if own:
                record.status = record.status or 200
                self._service.log.request(record)

    async def _answer(
        self,
        ctx: ServerRequestContext[Any],
        params: CallToolRequestParams,
        record: Record,
        setup: Setup,
        key: ClientKey,
    ) -> CallToolResult:
        mixtures = setup.mixtures
        request = read_arguments(params.name, params.arguments or {}, offered(mixtures, key))
        record.model = ",".join(request.profiles)
        said = [Message("system", request.system)] if request.system.strip() else []
        conversation = Conversation.of([*said, Message("user", request.prompt)])
        several, parent = len(request.profiles) > 1, _parent(ctx)
        proposals_only = params.name == "compare" and not several
        asked = [
            _ProfileCall(
                name,
                (await mixtures.offered(name, key)).profile,
                conversation,
                setup,
                key,
                parent,
                label=name if several else "",
                proposals_only=proposals_only,
            )
            for name in request.profiles
        ]
        if proposals_only and not asked[0].profile.rounds:
            raise UsageError(
                f"profiles: {asked[0].name!r} has no proposers; name several profiles, or use `ask`"
            )
        try:
            with self._service.key_limiter.turn(key):
                await self._run(ctx, asked)
        finally:
            # Also after an error: calls in flight when the client left are billed, too.
            usage = sum((each.turn.usage for each in asked), Usage())
            record.usage = usage
        if params.name == "ask":
            return _reply(asked[0])
        return _proposals(asked[0]) if proposals_only else _replies(asked, usage)

    async def _run(self, ctx: ServerRequestContext[Any], asked: Sequence[_ProfileCall]) -> None:
        """Run the turns, and report their progress.

        They run in separate tasks, because the SDK's cancel scope would cancel them again and again
        while they close their connections.
        """
        service, progress = self._service, CallProgress(sum(map(_calls, asked)))
        tasks = [asyncio.create_task(self._turn(each, progress)) for each in asked]
        for task in tasks:
            service.running.add(task)
            task.add_done_callback(service.running.discard)
        try:
            while not all(task.done() for task in tasks):
                running = [task for task in tasks if not task.done()]
                await asyncio.wait(
                    [*running, progress.news],
                    timeout=_TICK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for done, total, message in progress.reports():
                    await ctx.session.report_progress(done, total, message)
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            if task.cancelled():
                raise stopping()
            task.result()

    async def _turn(self, asked: _ProfileCall, progress: CallProgress) -> None:
        service, clients, fold = self._service, asked.setup.clients, TurnFold()
        sinks: list[Sink] = [service.metrics.turn(), TurnProgress(progress, asked.label)]
        try:
            async with service.limiter.turn():
                limits = replace(asked.setup.limits(asked.key, discreet=True), reply_held=True)
                if service.tracing is not None:
                    # Started before the calls, because they pass the trace on.
                    sinks.append(
                        service.tracing.turn(
                            clients.providers,
                            asked.parent,
                            served=True,
                            model=asked.name,
                            key=asked.key.name,
                        )
                    )
                profile = asked.profile
                if asked.proposals_only:
                    # All proposals are wanted, even if fewer would be enough for a reply.
                    profile = replace(profile, route=(), stop_when_agreed=None)
                events = run_turn(profile, asked.conversation, clients, limits=limits)
                if asked.proposals_only:
                    events = _up_to_the_proposals(events, profile.rounds)
                try:
                    await deliver(events, *sinks, fold=fold)
                finally:
                    asked.turn = fold.turn()
                    if asked.proposals_only and asked.turn.error is None and _texts(asked.turn):
                        # The turn was ended on purpose after the proposals.
                        asked.turn = replace(asked.turn, status="finished")
                    service.metrics.ended(asked.name, asked.turn, asked.key.name)
        except ApiError as error:
            asked.error = error
            return
        if asked.turn.status != "finished" and refusal_of(asked.turn) is None:
            asked.error = from_turn(asked.turn)


async def _up_to_the_proposals(
    events: AsyncGenerator[Event, None], rounds: int
) -> AsyncGenerator[Event, None]:
    """The events of a turn up to the proposals. The reply is not requested and costs nothing,
    because a step begins only after the event before it has been taken."""
    async with aclosing(events):
        async for event in events:
            yield event
            if isinstance(event, LayerFinished) and event.layer == rounds and event.answered:
                return


def _key(ctx: ServerRequestContext[Any]) -> ClientKey:
    return key_of(getattr(ctx.request, "scope", None) or {})


def _parent(ctx: ServerRequestContext[Any]) -> Mapping[str, str]:
    """The trace headers of a client's call: from the metadata of the call, as OpenTelemetry's
    conventions for this protocol require, or over HTTP from the headers."""
    told = {name: value for name, value in (ctx.meta or {}).items() if isinstance(value, str)}
    return {**getattr(ctx.request, "headers", {}), **told}


def offered(mixtures: Mixtures, key: ClientKey = ANYBODY) -> list[str]:
    """The profiles that can be asked, without aggregators alone: the agent is a single model
    itself."""
    return [name for name in mixtures.names(key) if not name.endswith(SOLO)]


def _record(ctx: ServerRequestContext[Any], tool: str) -> tuple[Record, bool]:
    """The log record of a call, and whether it needs a log line of its own: over HTTP, the line of
    its request includes it."""
    scope = getattr(ctx.request, "scope", None)
    if scope is not None and "moa.record" in scope:
        return scope["moa.record"], False
    return Record(f"req_{unique_name()}", "tools/call", one_line(tool, 64), "stdio"), True


def _about(profile: Profile) -> str:
    """A line about a profile, for the model that chooses one."""
    first = " ".join(profile.description.split())
    proposers = profile.layer(1) if profile.rounds else ()
    names = ", ".join(dict.fromkeys(short_name(proposer.model) for proposer in proposers))
    models = f"{names} → {closing_text(profile)}".removeprefix(" → ")
    return one_line(f"{first} ({models})" if first else models, 200)


def _calls(asked: _ProfileCall) -> int:
    """The number of model calls that a turn certainly makes if none fails."""
    stages = (
        stage
        for _, stage in foretold_stages(asked.profile)
        if not (asked.proposals_only and (stage.writes or stage.purpose))
    )
    return sum(len(stage.models) for stage in stages if stage.certain)


def _texts(turn: Turn) -> list[Proposal]:
    """The proposals of the last layer that has any."""
    for layer in reversed(turn.proposals):
        found = [proposal for proposal in layer if proposal.error is None and proposal.text]
        if found:
            return found
    return []


def _ledger(turn: Turn) -> dict[str, Any]:
    return ledger(turn) | {"lost": losses(turn)}


def _reply(asked: _ProfileCall) -> CallToolResult:
    if asked.error is not None:
        return _failed(asked.error.message, code=asked.error.code, moa=_ledger(asked.turn))
    text = asked.reply or ""
    return _result(text, {"reply": text, "moa": _ledger(asked.turn)})


def _proposals(asked: _ProfileCall) -> CallToolResult:
    """The proposals of one profile side by side."""
    if asked.error is not None:
        return _failed(asked.error.message, code=asked.error.code, moa=[_ledger(asked.turn)])
    shown = _texts(asked.turn)
    layer = asked.turn.proposals[shown[0].layer - 1]
    answers = [
        {
            "name": proposal.proposer,
            "model": proposal.answered_by or proposal.model,
            "text": proposal.text if proposal in shown else None,
            "error": proposal.error.message if proposal.error else None,
            "finish_reason": proposal.finish_reason,
        }
        for proposal in layer
    ]
    lost = [
        f"{proposal.proposer}: {proposal.error.message}" for proposal in layer if proposal.error
    ]
    moa = ledger(asked.turn) | {"lost": lost, "degraded": bool(lost)}
    return _side_by_side(answers, asked.turn.usage, [moa])


def _replies(asked: Sequence[_ProfileCall], usage: Usage) -> CallToolResult:
    """The replies of several profiles side by side."""
    answers = [
        {
            "name": each.name,
            "text": each.reply,
            "error": each.error.message if each.error else None,
        }
        for each in asked
    ]
    moa = [_ledger(each.turn) for each in asked]
    if all(each.error is not None for each in asked):
        why = "; ".join(f"{answer['name']}: {answer['error']}" for answer in answers)
        return _failed(why, moa=moa)
    return _side_by_side(answers, usage, moa)


def _side_by_side(
    answers: Sequence[dict[str, Any]], usage: Usage, moa: list[dict[str, Any]]
) -> CallToolResult:
    texts = []
    for number, answer in enumerate(answers, 1):
        text = answer["text"]
        said = f"(no answer: {answer['error']})" if text is None else text
        texts.append(f"## {number}. {answer['name']}\n\n{said}")
    told = {"answers": list(answers), "cost": cost_value(usage), "moa": moa}
    return _result("\n\n".join(texts), told)


def _result(text: str, structured: dict[str, Any], *, is_error: bool = False) -> CallToolResult:
    """A result, without lone surrogates, which a model may send and which UTF-8 cannot encode."""
    written = json.dumps([text, structured], ensure_ascii=False).encode("utf-8", "replace")
    text, structured = json.loads(written)
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured,
        is_error=is_error,
    )


def _failed(message: str, **structured: Any) -> CallToolResult:
    """An error that the calling model can read, in one line."""
    line = one_line(message)
    return _result(line, {"error": line, **structured}, is_error=True)
