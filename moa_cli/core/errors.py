"""All errors of moa, as one tree.

MoAError
├── UsageError               the command line asks for something that is not possible
├── ProfileError             a profile or the settings file is wrong or missing
├── ClientError              a model endpoint did not do what was asked
│   ├── AuthenticationFailed     no key, or the key was refused
│   ├── RateLimited              too many requests
│   │   └── NoCredit                 no credit left on the account
│   ├── ModelNotFound            the endpoint has no such model
│   ├── ContextTooLong           the prompt does not fit the model's context
│   ├── ContentFiltered          a content filter stopped the prompt or the answer
│   ├── AnswerRefused            the model refused to answer
│   ├── ToolsUnsupported         the model cannot call tools
│   ├── RequestRefused           any other refusal of the request (4xx)
│   ├── ServerFailed             the endpoint failed (5xx)
│   ├── ClientTimeout            no answer in time
│   ├── ConnectionLost           no connection, or it broke
│   ├── BadResponse              the answer is not what the protocol says
│   ├── SchemaMismatch           the answer is not the JSON that was asked for
│   └── LocalModelUnavailable    the embedded runtime or its weights are missing, or it crashed
├── TurnError                a turn ended without a reply
│   ├── NotEnoughProposals       no proposer of a layer answered
│   └── ImagesNotSeen            a prompt holds images, and no model of the profile can see them
├── BudgetReached            a cap on cost or tokens was reached
├── BenchError               an evaluation's data cannot be used, or part of it is missing
└── StoreError               conversations could not be read or written
    ├── StoreLocked              another process writes to them, and did not end in time
    └── NoConversation           there is no such conversation, or it was deleted

Each error has a message that names what is wrong and, if possible, a hint that says what to do.
Neither of them contains a secret.
"""

from __future__ import annotations

__all__ = [
    "AnswerRefused",
    "AuthenticationFailed",
    "BadResponse",
    "BenchError",
    "BudgetReached",
    "ClientError",
    "ClientTimeout",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "ImagesNotSeen",
    "LocalModelUnavailable",
    "MoAError",
    "ModelNotFound",
    "NoConversation",
    "NoCredit",
    "NotEnoughProposals",
    "ProfileError",
    "RateLimited",
    "RequestRefused",
    "SchemaMismatch",
    "ServerFailed",
    "StoreError",
    "StoreLocked",
    "ToolsUnsupported",
    "TurnError",
    "UsageError",
]


class MoAError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: One sentence that names what was wrong.
        hint: What you can do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MoAError):
    """The command line or a slash command asks for something that is not possible."""


class ProfileError(MoAError):
    """A profile or the settings file is wrong or missing.

    Args:
        problem: One sentence that names what is wrong.
        place: The file, variable, option or command that the wrong value comes from; the message
            begins with it.
        path: The path to the wrong key, such as `("proposers", 1, "model")`; () if no key is wrong.
        hint: What the user can do about it, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        place: str = "",
        path: tuple[str | int, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{place}: {problem}" if place else problem, hint=hint)
        self.problem = problem
        self.place = place
        self.path = path


class ClientError(MoAError):
    """A model endpoint did not do what was asked.

    Attributes:
        retryable: Whether the same request may succeed a little later.
        overloaded: Whether the endpoint takes no more requests for now. Then it has done no work
            for this one.
        retry_after: Seconds that the endpoint asked to wait, or None.
    """

    retryable = False
    overloaded = False

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class AuthenticationFailed(ClientError):
    """No key, or the key was refused."""


class RateLimited(ClientError):
    """Too many requests."""

    retryable = True
    overloaded = True


class NoCredit(RateLimited):
    """No credit is left on the account, or its limit of spending is reached."""

    retryable = False
    overloaded = False


class ModelNotFound(ClientError):
    """The endpoint has no such model."""


class ContextTooLong(ClientError):
    """The prompt does not fit the model's context."""


class ContentFiltered(ClientError):
    """The provider's content filter stopped the prompt or the answer."""


class AnswerRefused(ClientError):
    """The model refused to answer. The message contains the model's words."""


class ToolsUnsupported(ClientError):
    """The model cannot call tools, and was offered some.

    Attributes:
        advice: The hint that such an error has.
    """

    advice = 'use another model to write the reply, or set `tools` to "ignore"'


class RequestRefused(ClientError):
    """The endpoint refused the request for another reason (4xx)."""


class ServerFailed(ClientError):
    """The endpoint failed (5xx)."""

    retryable = True


class ClientTimeout(ClientError):
    """The endpoint did not answer in time."""


class ConnectionLost(ClientError):
    """No connection could be made, or it broke."""

    retryable = True


class BadResponse(ClientError):
    """The endpoint's answer is not what the protocol says."""


class SchemaMismatch(ClientError):
    """The model's answer is not the JSON that was asked for."""


class LocalModelUnavailable(ClientError):
    """The embedded runtime or its weights are missing, or it crashed."""


class TurnError(MoAError):
    """A turn ended without a reply."""


class NotEnoughProposals(TurnError):
    """No proposer of a layer answered."""


class ImagesNotSeen(TurnError):
    """A prompt holds images, and no model of the profile can see images. Nothing was sent."""


class BudgetReached(MoAError):
    """A cap on cost or tokens was reached."""


class BenchError(MoAError):
    """An evaluation's data cannot be used, or part of what it needs is missing."""


class StoreError(MoAError):
    """Conversations could not be read or written."""


class StoreLocked(StoreError):
    """Another process writes to the conversations, and did not end in time."""


class NoConversation(StoreError):
    """There is no such conversation, or it was deleted."""
