"""`moa setup`: finds keys and model servers, tries a mixture of their models, and makes it the
default profile."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli import wiring
from moa_cli.cli.commands import Debug
from moa_cli.cli.exit_codes import of_error, of_turn
from moa_cli.cli.options import ForceProfile, Yes
from moa_cli.cli.output import check_can_confirm, say
from moa_cli.cli.trial import trouble_of, try_model
from moa_cli.core import paths
from moa_cli.core.errors import ClientError, ClientTimeout, MoAError, ProfileError, UsageError
from moa_cli.core.text import plural, with_hint
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.clients.pool import ClientPool
    from moa_cli.core.conversation import Turn
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.models.table import Provider
    from moa_cli.profile import Profile

_LIST_SECONDS = 15.0
_SERVER_SECONDS = 2.0
_NAME = "mine"
# The price of a turn is shown for this prompt, which is as long as a question of a few sentences.
_EXAMPLE_PROMPT = "word " * 100


@dataclass(frozen=True)
class _Source:
    """A provider with a key, or a model server on this machine. origin: where it was found. here:
    whether it is on this machine. trouble: why it cannot be used, or None."""

    provider: str
    origin: str
    models: tuple[ModelInfo, ...] = field(default=(), repr=False)
    here: bool = False
    trouble: MoAError | None = None


@dataclass(frozen=True)
class _Proposal:
    """A mixture of the models of a source. price: the cost of a turn, in words."""

    profile: Profile
    price: str


def setup(
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The name of the profile to make.")
    ] = None,
    force: ForceProfile = False,
    yes: Yes = False,
    debug: Debug = False,
) -> None:
    """Find keys and model servers, try a mixture of their models, and make it the default.

    Looks for keys in the environment and in .env files, and for Ollama, LM Studio, llama.cpp and
    vLLM on this machine. Each model of the mixture is asked once, with a few tokens. With --yes,
    the first mixture that answers is taken without a question.
    """
    if not yes:
        check_can_confirm()
    if name is not None:
        from moa_cli.profile import check_new_name

        check_new_name(name, overwrite=force)
    import asyncio

    from moa_cli.api import open_clients

    # One pool for all, so that each list of models is read once. Between the steps the event loop
    # rests: Ctrl-C at a question ends the command as it does anywhere else.
    with asyncio.Runner() as loop, ExitStack() as opened:
        pool = open_clients()
        opened.callback(lambda: loop.run(pool.aclose()))
        sources = loop.run(_sources(pool))
        for source in sources:
            say(_found(source))
        proposals = loop.run(_proposals([source for source in sources if not source.trouble], pool))
        if not proposals:
            _nothing_answers(sources)
            return
        ordered = proposals if yes else [_asked_for(proposals)]
        for proposal in ordered:
            profile, failed = loop.run(_tried(proposal.profile, pool))
            if profile is not None:
                _keep(profile, proposal, name, force=force)
                return
    raise typer.Exit(of_turn(failed[0]))


async def _sources(pool: ClientPool) -> list[_Source]:
    """The sources that were found: providers with a key in the order of their table, then
    servers."""
    import asyncio

    from moa_cli.clients.local_servers import find_local_servers

    servers = find_local_servers(pool.providers, patience=_SERVER_SECONDS)
    running = {server.provider for server in servers}
    keyed = [
        provider
        for provider in pool.providers.known.values()
        if provider.name not in running and pool.providers.key_source(provider)
    ]
    asked = await asyncio.gather(*(_ask(pool, provider) for provider in keyed))
    return [
        *asked,
        *(
            _Source(server.provider, "on this machine", server.models, here=True)
            for server in servers
        ),
    ]


async def _ask(pool: ClientPool, provider: Provider) -> _Source:
    """A provider with a key as a source. Reading its list also shows whether the key is valid."""
    import asyncio

    from moa_cli.models.choosing import can_chat

    origin = f"key from {pool.providers.key_source(provider)}"
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            listed = await pool.catalog.read(provider)
    except TimeoutError:
        late = ClientTimeout(f"{provider.name}: no list of models within {_LIST_SECONDS:g} seconds")
        return _Source(provider.name, origin, trouble=late)
    except ClientError as error:
        return _Source(provider.name, origin, trouble=error)
    chats = tuple(filter(can_chat, listed))
    none = None if chats else ProfileError(f"{provider.name}: lists no chat models")
    return _Source(provider.name, origin, chats, trouble=none)


def _found(source: _Source) -> str:
    if source.trouble is None:
        return f"{source.provider}: {plural(len(source.models), 'model')} ({source.origin})"
    return f"{with_hint(source.trouble.message, source.trouble.hint)}; {source.origin}"


async def _proposals(sources: Sequence[_Source], pool: ClientPool) -> list[_Proposal]:
    found = []
    for source in sources:
        profile = await _mixture(source, pool)
        if profile is not None:
            listed = {f"{source.provider}:{info.id}": info for info in source.models}
            facts = {model: await pool.facts(model) for model in profile.models()}
            # A price in the settings comes before the listed one; models on this machine cost
            # nothing.
            known = {
                model: listed.get(model, info) if info.price is None else info
                for model, info in facts.items()
            }
            found.append(_Proposal(profile, _price(profile, known)))
    return found


async def _mixture(source: _Source, pool: ClientPool) -> Profile | None:
    """The shipped profile of a provider if its models are listed, else a choice of listed models.

    A server on this machine gets a choice of the models that the user has installed, because a
    profile may name others.
    """
    from moa_cli.models.candidates import LIST_PATIENCE
    from moa_cli.models.choosing import choose
    from moa_cli.profile import build, find, load

    listed = {info.id for info in source.models}
    try:
        shipped = find(source.provider)
        profile = await pool.settled(load(source.provider), patience=LIST_PATIENCE)
        ids = {pool.providers.model_id(model) for model in profile.models()}
        if shipped.source == "shipped" and ids <= listed and not source.here:
            return profile
    except ProfileError:
        pass
    chosen = choose(source.provider, source.models, most=3 if source.here else 4)
    if chosen is None:
        return None
    about = f"Models of {source.provider}, chosen by moa setup"
    return build(_NAME, {"description": about, **chosen.table()})


def _price(profile: Profile, facts: Mapping[str, ModelInfo]) -> str:
    from moa_cli.core.conversation import Conversation
    from moa_cli.core.money import cost_text
    from moa_cli.engine.forecast import forecast_turn
    from moa_cli.terminal.estimate import whole

    usage = whole(forecast_turn(profile, Conversation().ask(_EXAMPLE_PROMPT), facts)).usage
    if usage.cost:
        return f"about {cost_text(usage).lstrip('~')} a turn"
    return "price unknown" if usage.unpriced_calls else "costs nothing"


def _asked_for(proposals: Sequence[_Proposal]) -> _Proposal:
    """The proposal that the user chooses."""
    by_number = {str(place): proposal for place, proposal in enumerate(proposals, 1)}
    for number, proposal in by_number.items():
        line = f"{number}  {_line(proposal.profile)}  ({proposal.price})"
        typer.echo(folded(f"  {line}", sys.stderr), err=True)
    say("each model of the mixture that you choose is then asked once, with a few tokens")
    while True:
        answer: str = typer.prompt("Which mixture?", default="1", err=True).strip()
        if answer in by_number:
            return by_number[answer]
        say(f"there is no mixture {answer}; type one of {', '.join(by_number)}")


def _line(profile: Profile) -> str:
    return wiring.describe(profile).partition(": ")[2]


async def _tried(profile: Profile, pool: ClientPool) -> tuple[Profile | None, list[Turn]]:
    """Ask each model once. Returns the profile without the models that do not answer (None if none
    answers), and the failed turns."""
    import asyncio

    from moa_cli.profile import short_name

    models = list(dict.fromkeys(profile.models()))
    say(f"asking {', '.join(map(short_name, models))} …")
    tried = await asyncio.gather(*(try_model(model, pool) for model in models))
    working, failed = [], []
    for model, turn in zip(models, tried, strict=True):
        trouble = trouble_of(turn)
        if trouble is None:
            working.append(model)
            say(f"{short_name(model)}: answers")
        else:
            failed.append(turn)
            what = "was not asked" if turn.capped else "does not answer"
            say(f"{short_name(model)} {what}: {with_hint(trouble.message, trouble.hint)}")
    if not failed or not working:
        return (profile if working else None), failed
    aggregator = profile.aggregator
    changed = replace(
        profile,
        proposers=tuple(p for p in profile.proposers if p.model in working),
        aggregator=replace(
            aggregator,
            model=aggregator.model if aggregator.model in working else working[0],
            fallbacks=tuple(model for model in aggregator.fallbacks if model in working),
        ),
    )
    return (changed if changed.proposers else replace(changed, rounds=0)), failed


def _keep(profile: Profile, proposal: _Proposal, name: str | None, *, force: bool) -> None:
    from moa_cli.config.edit import set_setting
    from moa_cli.config.names import find_name
    from moa_cli.config.schema import to_config
    from moa_cli.profile import dump, save

    content = dump(profile).encode("utf-8")
    chosen = name or (_NAME if force else _free_name(content))
    path = save(profile, chosen, overwrite=force or _holds(chosen, content))
    before = wiring.config().profile
    place = str(paths.config_file())
    typer.echo(path)
    try:
        set_setting(
            paths.config_file(), find_name("profile"), chosen, lambda table: to_config(table, place)
        )
    except ProfileError as error:
        kept = f"the profile is saved, but is not the default; use it with `-p {chosen}`"
        raise ProfileError(error.message, hint=kept) from None
    was = f" (it was {before})" if before and before != chosen else ""
    say(f"{chosen} is the default profile now{was}: {_line(profile)}; {proposal.price}")
    ahead = os.environ.get("MOA_PROFILE")
    if ahead and ahead != chosen:
        say(f"MOA_PROFILE is set to {ahead}, which overrides it; unset it to use {chosen}")
    say("next: `moa ask` or `moa chat`")


def _free_name(content: bytes) -> str:
    """The usual name, or the first one with a number, that no other profile has. A profile with
    this content keeps its name, so that the same command can run again."""
    taken = {path.stem for path in paths.user_profiles_dir().glob("*.toml")}
    names = chain([_NAME], (f"{_NAME}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken or _holds(name, content))


def _holds(name: str, content: bytes) -> bool:
    """Whether the user's profile of this name has exactly this content."""
    try:
        return (paths.user_profiles_dir() / f"{name}.toml").read_bytes() == content
    except OSError:
        return False


def _nothing_answers(sources: Sequence[_Source]) -> None:
    """Print what to do if no provider and no server can be used. Raises typer.Exit if there is one
    that cannot be used, UsageError if there is none and no embedded model either.
    """
    for source in sources:
        if source.trouble is not None:
            # The message has been printed already.
            raise typer.Exit(of_error(source.trouble))
    from moa_cli.clients.local.weights import SMOLLM2, find_weights

    ways = (
        "set a key such as TOGETHER_API_KEY, OPENROUTER_API_KEY or OPENAI_API_KEY, or start Ollama"
        " or LM Studio, and run `moa setup` again"
    )
    try:
        find_weights(SMOLLM2, wiring.config())
    except ClientError as error:
        tiny = f"; for a tiny demonstration model: {error.hint}" if error.hint else ""
        raise UsageError(
            "there is no API key and no model server on this machine", hint=f"{ways}{tiny}"
        ) from error
    say(f"there is no API key and no model server on this machine: {ways}")
    say("until then, moa uses the embedded model, a tiny demonstration model that is often wrong;")
    say("`moa models suggest` names better ones that run inside moa")
