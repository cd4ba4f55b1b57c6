"""What the commands that serve have in common: how their set-up is read, now and later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from typer import Option

from moa_cli.cli import wiring
from moa_cli.cli.saving import open_books
from moa_cli.core.errors import MoAError

if TYPE_CHECKING:
    from moa_cli.cli.options import TurnCaps, TypedMixture
    from moa_cli.config.schema import Config
    from moa_cli.engine import Budget, Limits
    from moa_cli.observability.tracing import Tracing
    from moa_cli.profile import Profile
    from moa_cli.server.ledger import ServerLedger
    from moa_cli.server.run import Start
    from moa_cli.server.service import ServerOptions

Insecure = Annotated[
    bool, Option("--insecure", help="Accept requests from other machines without a key.")
]
# What every server is made of.
_MODULES = ("starlette", "uvicorn", "prometheus_client")


def check_installed(extra: str, server: str, *modules: str) -> None:
    """Raise MoAError if an extra is not installed. server: what it holds. modules: of which it
    consists, beside those of all servers."""
    if any(find_spec(name) is None for name in (*modules, *_MODULES)):
        from moa_cli.core.installation import install_command

        command = install_command(extra)
        raise MoAError(f"{server} is not installed", hint=f"install it with: {command}")


def set_up(
    profile: Profile,
    options: ServerOptions,
    typed: TypedMixture,
    caps: TurnCaps,
    concurrency: int | None,
    *,
    unset: int,
    tracing: Tracing | None,
    notes: Sequence[str],
) -> Start:
    """What a server begins with.

    typed, caps: what was typed, which holds whatever the files say. concurrency: calls at the same
    time, None if that was not typed. unset: those where the settings tell of none either. notes:
    lines to show at the start, beside those on the profile.
    """
    from moa_cli.clients.limiter import Limiter
    from moa_cli.config.schema import load_config
    from moa_cli.server.run import Start

    # One for all calls and all settings: what runs counts, whatever changes.
    limiter = Limiter(unset)
    session = _SessionBudget()

    def default(config: Config) -> Profile:
        wiring.use(config)
        return wiring.choose_profile(typed.profile, typed.settings, settles=False)

    def limits(config: Config, ledger: ServerLedger) -> Limits:
        wiring.use(config)
        calls = concurrency or (config.concurrency if "concurrency" in config.given else unset)
        limiter.resize(calls)
        # The day's budget asks the server's ledger.
        budgets = (*caps.budgets(ledger, one_turn=False), *session.under(config))
        slots = limiter.slots(wiring.providers().provider_of)
        return replace(wiring.limits(calls, budgets, ledger), slots=slots)

    return Start(
        profile=profile,
        options=options,
        config=wiring.config(),
        read_config=load_config,
        default=default,
        limits=limits,
        calls=limiter,
        spending=open_books(save=None).spending,
        tracing=tracing,
        introduction=[*wiring.introduction(wiring.settled(profile), switching=True), *notes],
    )


class _SessionBudget:
    """What one run of the server may spend, also where the limit is changed while it runs."""

    def __init__(self) -> None:
        self._budget: Budget | None = None

    def under(self, config: Config) -> tuple[Budget, ...]:
        """The budget that these settings set, if they do; what was spent counts on."""
        found = wiring.session_budget("shared", config)
        if self._budget is None:
            self._budget = next(iter(found), None)
        elif found:
            self._budget.cap = found[0].cap
        return (self._budget,) if found and self._budget is not None else ()
