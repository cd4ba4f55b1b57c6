"""The mixture that continues an earlier conversation: its own, unless another one is typed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from moa_cli.cli import wiring
from moa_cli.core.errors import ProfileError, UsageError

if TYPE_CHECKING:
    from moa_cli.chat.keeping import Past
    from moa_cli.cli.options import TypedMixture
    from moa_cli.profile import Profile


def own_mixture(typed: TypedMixture, past: Past) -> tuple[Profile | None, str]:
    """The mixture that a conversation was last held with, changed by the typed settings.

    Returns it, and a description of it. It is None if a profile was typed, or if the conversation's
    own mixture is not known, as after some imports. Raises ProfileError if the mixture cannot be
    used any more, or the typed settings do not fit it.
    """
    if typed.profile is not None:
        return None, ""
    from moa_cli.profile import resolve, stored
    from moa_cli.profile.layering import FOUND, TYPED

    check = wiring.providers().check
    place = f"conversation {past.identity}"
    profile = stored(past.settings, past.profile, place, typed.settings)
    if profile is not None:
        check(profile)
        # How mixtures that have no profile file are named in messages.
        nameless = {TYPED: "typed models", FOUND: "models of this machine"}
        return profile, f"{nameless.get(profile.name, f'profile {profile.name}')} as it was"
    try:
        # An import, or an early version, keeps no more than a name.
        named = resolve(past.profile, environment=os.environ, flags=typed.settings, check=check)
    except ProfileError:
        return None, ""
    return named, f"profile {named.name} as it is now"


def take_up(past: Past, typed: TypedMixture) -> tuple[Profile, str]:
    """The mixture with which a command continues a conversation, and a line that says so.

    Raises UsageError if the conversation's own mixture cannot be used, because the conversation
    must not be sent to other models unless the user names them.
    """
    try:
        own, words = own_mixture(typed, past)
    except ProfileError as error:
        if not error.place.startswith("conversation "):
            raise
        raise UsageError(
            f"{error.place} cannot continue with its own settings: {error.problem}",
            hint="to continue with another profile: -p NAME",
        ) from None
    profile = own or typed.resolved()
    if own is not None:
        told = f"{words}; -p NAME changes it"
    else:
        before = f", not {past.profile}" if past.profile not in ("", profile.name) else ""
        told = f"profile {profile.name}{before}"
    return profile, f"continuing {past.identity} with {told}"
