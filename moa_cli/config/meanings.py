"""The meanings of settings that are also options of commands. They are written once, for the
settings file, for profiles, and for the help of the options.

This is a module of its own, because the dataclasses of the settings take longer to load than a help
text.
"""

from __future__ import annotations

from typing import Final

MEANINGS: Final[dict[str, str]] = {
    # Settings of the settings file.
    "profile": "the profile to use (see `moa profile list`)",
    "concurrency": "maximum number of calls at the same time (`moa serve`: 256, if not set)",
    "save": "keep conversations (see `moa history`)",
    "keep_texts": (
        "keep the prompts and answers of `moa compare` with what you choose, for its judges"
    ),
    "plain": "show the reply as raw text, not as drawn Markdown",
    "compact": "show each layer in one line",
    "live": "draw progress live; otherwise print it as plain lines",
    "accessible": (
        "write everything as plain lines for a screen reader: nothing on the screen changes,"
        " and nothing is drawn"
    ),
    "progress_interval": (
        "with `accessible`, seconds between two lines about the progress of a turn; 0 or false:"
        " none"
    ),
    "show_reasoning": "show the reasoning of models while they think",
    "bell": (
        "ring the terminal's bell after a turn that took this many seconds or more; 0 or false:"
        " never"
    ),
    "title": "show the progress of a turn in the terminal's title",
    "theme": (
        "the colours of replies: `auto` uses the terminal's own colours, `dark` and `light`"
        " are for dark and light backgrounds, `none` uses no colours"
    ),
    "usage": "print calls, tokens, cost and seconds after each `moa ask`",
    "vi": "edit with vi keys",
    # Settings of a profile.
    "rounds": "layers of proposers; 0 asks the aggregator alone",
    "multi_turn": "whether earlier turns are sent along",
    "max_history": "maximum number of earlier turns that are sent along; if unset, as many as fit",
    "system": "system prompt for all models",
    "temperature": "temperature of all models; if unset, each model's own default",
    "max_tokens": "maximum number of tokens of an answer",
    "timeout": "seconds a call may take, retries included; if unset, no limit",
    "stall": "seconds without progress after which a call is given up",
    "first_token": "seconds without a first token after which a call is given up",
    "hedge_after": "seconds without a first token after which the request is sent again",
    "quorum": (
        "number of answers of a layer that are enough; the others have `patience` seconds more"
    ),
    "patience": "seconds that the other proposers have after the quorum is reached",
    "use_partial": "whether an unfinished answer of a proposer that was too slow is used",
    "overlap": "whether the next layer begins as soon as the quorum is reached",
    "reference_placement": "message that holds the references: `system` or `user`",
    "reference_format": (
        "how references are marked: `paper` numbers them, `solutions` gives them headings,"
        " `fenced` adds borders"
    ),
    "reference_names": "whether references show the names of their proposers",
    "merge_prompt": (
        "text file with {references} in it (or the text), sent in place of the paper's prompt"
    ),
    "strategy": (
        "how proposals become the reply: `synthesize`, `fusion`, `vote`, `select` or `council`"
    ),
    "judge": "model that compares, chooses, checks and reports; if unset, the aggregator's",
    "final_answer": (
        "how a final answer is read: `auto`, `number`, `choice`, `boxed`, `text`, `json:FIELD`"
        " or `regex:PATTERN`"
    ),
    "chosen_by": "who chooses with the strategy `select`: the `judge`, or the `proposers`",
    "one_call": "whether, with `fusion`, the aggregator compares and writes in one call",
    "stop_when_agreed": (
        "do not ask the aggregator if all proposals have the same final answer, nor further"
        " rounds if they are as similar as this, 0 to 1"
    ),
    "report": "whether to add a report on where the proposals disagree",
    "proposers": "the models that answer in every layer",
    "aggregator": "the model that writes the reply",
    # Settings of a proposer.
    "samples": "how many times each proposer answers, independently",
}


def sentence(meaning: str, more: str = "") -> str:
    """A setting's meaning as a sentence. more: text that is appended."""
    text = f"{meaning}; {more}" if more else meaning
    return f"{text[0].upper()}{text[1:]}."
