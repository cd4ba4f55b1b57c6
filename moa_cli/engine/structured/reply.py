"""A reply that has to be JSON: it is held back until its check, and requested again if wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import AnswerRefused, SchemaMismatch
from moa_cli.core.events import Hedged, Retrying
from moa_cli.core.outcomes import REFUSED, ending_of
from moa_cli.engine.advice import begins_reply
from moa_cli.engine.calls.call import Begun, Call, Planned, Step
from moa_cli.engine.state import TurnState
from moa_cli.engine.structured.format import FormatCheck, ResponseFormat

_ASK_AGAIN = (
    "Your answer is not the JSON that was asked for: {problem}.\n\n"
    "Give the whole answer again, corrected, as JSON alone: no words and no Markdown around it."
)
_TOO_SHORT = "raise max_tokens for the model that writes the reply"


class CheckedReply:
    """The reply of one aggregator.

    calls: the calls that were made for the reply; the last one counts. text: the JSON, once the
    check has passed.
    """

    def __init__(
        self, state: TurnState, planned: Planned, call: Call, tell: Callable[[Step], None]
    ) -> None:
        self.calls = [call]
        self.text = ""
        self._state = state
        self._planned = planned
        self._tell = tell
        self._token_logprobs: list[str] = []

    async def run(self, format: ResponseFormat) -> None:
        """Make the call, and a second one if its answer is not what was asked for.

        Raises the errors of `Call.run`, or SchemaMismatch if no answer is what was asked for.
        """
        await self.calls[0].run(self._hold)
        verdict = await self._verdict(format)
        if verdict.problem is not None:
            await self._ask_again(verdict)
            verdict = await self._verdict(format)
        if verdict.problem is not None:
            raise _mismatch(verdict)
        self.text = verdict.text
        same = self.text == self.calls[-1].text
        self._tell(
            Delta(
                text=self.text,
                # The probabilities belong to the tokens of the original text.
                token_logprobs=tuple(self._token_logprobs) if same else (),
            )
        )

    def _hold(self, step: Step) -> None:
        """Pass on a step without its text."""
        if isinstance(step, Delta):
            self._token_logprobs += step.token_logprobs
            step = Delta(reasoning=step.reasoning, tool_calls=step.tool_calls)
        elif not isinstance(step, Begun | Hedged):
            # The second call may go to an alternative model, but events name the model of the
            # first call.
            step = replace(step, model=self._planned.settings.model)
        if isinstance(step, Retrying):
            if step.withdrawn:
                self._token_logprobs.clear()
            before = sum(call.attempts for call in self.calls[:-1])
            step = replace(step, attempt=before + step.attempt)
        self._tell(step)

    async def _verdict(self, format: ResponseFormat) -> FormatCheck:
        """Check the answer of the last call. Raises ClientError if another request would not
        help."""
        call = self.calls[-1]
        if call.called:
            # The model calls tools, so a text beside the calls is not its answer yet.
            return FormatCheck(call.text)
        # In a thread, because the check may take seconds.
        verdict = await asyncio.to_thread(format.verdict, call.text)
        if verdict.problem is None:
            return verdict
        ending = ending_of(call.heard.finish_reason)
        if ending == "refusal":
            raise AnswerRefused(f"{REFUSED}: {' '.join(call.text.split())}")
        if ending == "content_filter":
            raise call.heard.no_answer()
        if ending == "length":
            raise SchemaMismatch(
                "its tokens ran out (max_tokens) before the JSON was whole", hint=_TOO_SHORT
            )
        if not verdict.checkable:
            raise _mismatch(verdict)
        return verdict

    async def _ask_again(self, verdict: FormatCheck) -> None:
        """Make a second call, which tells the model what is wrong with its first answer.

        Raises SchemaMismatch if a second call is not allowed or does not fit the model's context,
        BudgetReached if a cap leaves no room for it.
        """
        state, first = self._state, self.calls[0]
        error = _mismatch(verdict)
        if not state.may_repair:
            raise error
        # There is only one repair in a turn, even if several aggregators are tried.
        state.may_repair = False
        await state.taken(first)
        asked = list(first.messages)
        if begins_reply(asked):
            # The model did not continue this beginning of a reply, so it is left out.
            asked.pop()
        told = Message("user", _ASK_AGAIN.format(problem=verdict.problem))
        again = await state.plan_again(
            self._planned, first, (*asked, Message("assistant", first.text), told)
        )
        if again is None:
            raise error
        self._hold(first.retrying(1 + first.attempts, 0.0, error, withdrawn=True))
        second = state.call(again)
        self.calls.append(second)
        await second.run(self._hold)


def _mismatch(verdict: FormatCheck) -> SchemaMismatch:
    return SchemaMismatch(
        f"its answer is not the JSON that was asked for: {verdict.problem}",
        hint="use a model that follows schemas, or a simpler schema",
    )
