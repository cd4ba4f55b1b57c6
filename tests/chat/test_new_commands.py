"""The commands on a mixture in use, on its proposals, on files and on the clipboard, over plain
lines; and the keys and commands that edit, at an editor with a pipe for a keyboard.

What a command asks for is told by what the upstream is sent; one that fails changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from moa_cli.chat.commands import COMMANDS, Edit
from moa_cli.chat.loop import Chat
from moa_cli.chat.options import ChatOptions
from moa_cli.chat.session import Session
from moa_cli.engine import Limits
from tests.support.command import Moa, Terminal
from tests.support.keyboard import typed
from tests.support.mixtures import mixture, pool
from tests.support.upstream import Reply, Upstream

REFUSED = Reply(status=400, error={"error": {"message": "no"}})
RAIN = "Rain falls when the drops in a cloud grow too heavy for the air."
SNOW = "Snow is made of ice crystals which have grown in a cloud."


class Talk:
    """A conversation over plain lines. out: what the last ones put on standard output."""

    def __init__(self, upstream: Upstream, capture: pytest.CaptureFixture[str]) -> None:
        self.upstream = upstream
        self.out = ""
        self._capture = capture
        self._runner = asyncio.Runner()
        self._pool = pool(upstream)
        self.chat = Chat(Session(mixture("a", "b"), self._pool, Limits(retries=0)))
        self.session = self.chat.session

    def do(self, *lines: str) -> str:
        """What is said on standard error to these lines, without the turns' figures."""

        async def given() -> AsyncIterator[str]:
            for line in lines:
                yield line

        self._runner.run(self.chat.read(given()))
        self.out, err = self._capture.readouterr()
        return re.sub(r"^\(\d+ calls?, .*\n", "", err, flags=re.MULTILINE).strip()

    def sent(self, model: str) -> list[list[str]]:
        """What that model was sent, call by call, without system messages."""
        return [
            [str(one["content"]) for one in request.messages if one["role"] != "system"]
            for request in self.upstream.chats(model)
        ]

    def references(self, call: int = -1, model: str = "agg") -> list[str]:
        """The references of a call to the aggregator."""
        system = self.upstream.chats(model)[call].messages[0]
        return re.findall(r"^\d+\. (.*)$", str(system["content"]), re.MULTILINE)

    def remembered(self) -> list[tuple[str, str | None]]:
        return [(turn.user, turn.reply) for turn in self.session.conversation.turns]

    def close(self) -> None:
        self._runner.run(self._pool.aclose())
        self._runner.close()


@pytest.fixture
def talk(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> Iterator[Talk]:
    """A new conversation with the proposers a and b and the aggregator agg."""
    made = Talk(upstream, capsys)
    yield made
    made.close()


def test_a_model_that_is_added_answers_from_the_next_turn_on(talk: Talk) -> None:
    assert talk.do("/add lab:c") == "round 1: lab:a, lab:b, lab:c\naggregator: lab:agg"
    talk.do("hi")
    assert talk.sent("c") == [["hi"]]


def test_adding_a_model_to_the_aggregator_alone_begins_a_round(talk: Talk) -> None:
    talk.do("/rounds 0", "/add lab:c", "hi")
    assert talk.session.profile.rounds == 1
    assert talk.sent("c") == [["hi"]]


def test_a_model_that_is_dropped_is_asked_no_more(talk: Talk) -> None:
    assert talk.do("/drop lab:b") == "round 1: lab:a\naggregator: lab:agg"
    talk.do("hi")
    assert talk.sent("b") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/add", "moa: /add needs a model"),
        ("/add a b", "moa: /add: `proposers[3].model` is not a model name: 'a b'"),
        ("/drop", "moa: /drop needs a model"),
        ("/drop lab:z", "moa: there is no proposer `lab:z` (there are lab:a, lab:b)"),
    ],
)
def test_what_cannot_be_added_or_dropped_is_told(talk: Talk, line: str, said: str) -> None:
    before = talk.session.profile
    assert talk.do(line) == said
    assert talk.session.profile == before


def test_the_last_proposer_stays(talk: Talk) -> None:
    said = talk.do("/drop lab:a", "/drop lab:b")
    assert said.endswith("the last proposer of a round cannot be dropped (use /rounds 0)")
    assert [one.model for one in talk.session.profile.proposers] == ["lab:b"]


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("temperature 0.3", "temperature", 0.3),
        ("max_tokens 77", "max_tokens", 77),
        ("aggregator.temperature 0.1", "temperature", 0.1),
        ("aggregator.max_tokens 99", "max_tokens", 99),
        ("aggregator.top_p 0.5", "top_p", 0.5),
        ("aggregator.seed 7", "seed", 7),
    ],
)
def test_a_setting_of_the_profile_is_sent(
    talk: Talk, setting: str, field: str, value: float
) -> None:
    assert talk.do(f"/set {setting}") == setting.replace(" ", " = ", 1)
    talk.do("hi")
    [proposer], [aggregator] = (talk.upstream.chats(model) for model in ("a", "agg"))
    assert aggregator.body[field] == value
    assert (field in proposer.body) == (not setting.startswith("aggregator."))


def test_settings_that_are_no_fields_of_a_request_hold_too(talk: Talk) -> None:
    talk.upstream.always("c", REFUSED)
    talk.do(
        "/set rounds 2",
        "/set system Be brief.",
        "/set multi_turn off",
        "/set reference_placement user",
        "/set on_all_failed solo",
        "/set timeout 30",
        "/set aggregator.model lab:c",
        '/set aggregator.fallbacks ["lab:d"]',
        "first",
        "second",
    )
    assert len(talk.upstream.chats("a")) == 4
    assert talk.sent("a")[2] == ["second"]
    assert talk.upstream.chats("a")[0].messages[0]["content"] == "Be brief."
    assert "1. ok" in talk.sent("d")[-1][-1]


@pytest.mark.parametrize("key", ["compact", "live", "plain", "reasoning", "vi"])
def test_a_setting_of_the_chat_is_switched(talk: Talk, key: str) -> None:
    for word, value in (("on", True), ("off", False), ("yes", True), ("FALSE", False)):
        assert talk.do(f"/set {key} {word}") == f"{key} = {word}"
        assert getattr(talk.chat.options, key) is value


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rouds 2", "there is no key `rouds` to set (did you mean `rounds`?)"),
        ("compcat on", "there is no key `compcat` to set (did you mean `compact`?)"),
        ("aggregator.modell x", "there is no key `aggregator.modell` to set (did you mean `agg"),
        ("zzz 1", "there is no key `zzz` to set (known: description, rounds, "),
        ("rounds x", "/set: `rounds` must be a whole number, not 'x'"),
        ("rounds", "/set needs a key and a value (/profile show lists the keys)"),
        ("", "/set needs a key and a value"),
        ("temperature 9", "/set: `temperature` must be between 0 and 2, not 9"),
        ("on_all_failed cry", "/set: `on_all_failed` must be one of fail, solo, not 'cry'"),
        ("compact perhaps", "compact is on or off, not 'perhaps'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(talk: Talk, setting: str, said: str) -> None:
    before, options = talk.session.profile, str(talk.chat.options)
    assert talk.do(f"/set {setting}").startswith(f"moa: {said}")
    assert (talk.session.profile, str(talk.chat.options)) == (before, options)


def test_a_file_goes_with_the_next_prompt_and_no_further(talk: Talk) -> None:
    Path("notes.txt").write_text("hello\n```\n", "utf-8")
    assert talk.do("/file notes.txt") == "notes.txt goes with the next prompt"
    talk.do("What is it?", "And now?")
    attached = "What is it?\n\nnotes.txt:\n````\nhello\n```\n````"
    assert talk.sent("a") == [[attached], [attached, "ok", "And now?"]]
    assert talk.sent("agg") == talk.sent("a")


def test_several_files_go_together(talk: Talk) -> None:
    for name in ("one two.txt", "three.txt"):
        Path(name).write_text(name, "utf-8")
    said = talk.do("/file one two.txt", "/file three.txt", "Well?")
    assert said.endswith("three.txt goes with the next prompt (2 files)")
    [[prompt]] = talk.sent("a")
    assert (
        prompt == "Well?\n\none two.txt:\n```\none two.txt\n```\n\nthree.txt:\n```\nthree.txt\n```"
    )


@pytest.mark.parametrize("again", ["Well?", "/retry"])
def test_a_file_waits_for_a_turn_that_does_not_fail(talk: Talk, again: str) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    talk.upstream.enqueue("agg", REFUSED)
    talk.do("/file notes.txt", "Well?", again, "And?")
    attached = "Well?\n\nnotes.txt:\n```\nhello\n```"
    assert talk.sent("agg") == [[attached], [attached], [attached, "ok", "And?"]]


def test_a_file_is_not_used_up_by_a_reply_to_another_prompt(talk: Talk) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    talk.do("first", "/file notes.txt", "/remerge", "second")
    assert talk.sent("a")[-1][-1] == "second\n\nnotes.txt:\n```\nhello\n```"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "moa: /file needs a path"),
        ("none.txt", "moa: none.txt: cannot be read: No such file or directory"),
        (".", "moa: .: cannot be read: Is a directory"),
        ("binary", "moa: binary: is not a text file"),
        ("~nobody-at-all/x", "moa: ~nobody-at-all/x: is not a path"),
        ("a\0b", "moa: ab: is not a path"),
    ],
)
def test_what_is_no_text_file_is_not_attached(talk: Talk, path: str, said: str) -> None:
    Path("binary").write_bytes(b"\xff\0")
    assert talk.do(f"/file {path}").startswith(said)
    assert talk.chat.options.attachments == []


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (
            "multiline",
            "Alt-Enter sends, Enter begins a new line",
            "Enter sends, Alt-Enter begins a new line",
        ),
        ("plain", "replies are shown as raw text", "replies are shown as Markdown"),
    ],
)
def test_multiline_and_plain_are_switched_and_back(
    talk: Talk, command: str, first: str, second: str
) -> None:
    for said, value in ((first, True), (second, False)):
        assert talk.do(f"/{command}") == said
        assert getattr(talk.chat.options, command) is value


def test_edit_asks_for_the_editor_on_a_text(talk: Talk) -> None:
    assert talk.chat.outcome("/edit a text to begin with") == Edit("a text to begin with")
    assert talk.chat.outcome("/edit") == Edit("")


def proposed(talk: Talk) -> None:
    """A turn of two rounds is over."""
    talk.upstream.enqueue("a", Reply(text=f"First of a. {SNOW}"), Reply(text=RAIN))
    talk.upstream.enqueue("b", Reply(text="First of b."), Reply(text=f"{SNOW}\x1b[2J [/INST]"))
    talk.upstream.enqueue("agg", Reply(text=f"{RAIN} {SNOW}"))
    talk.do("/rounds 2", "Why?")


def test_show_lists_all_rounds_and_prints_one_proposal_of_any(talk: Talk) -> None:
    proposed(talk)
    assert talk.do("/show").splitlines() == [
        "1  round 1  lab:a: First of a. Snow is made of ice crystals which have grown i…",
        "2  round 1  lab:b: First of b.",
        "1  round 2  lab:a: Rain falls when the drops in a cloud grow too heavy for the…",
        "2  round 2  lab:b: Snow is made of ice crystals which have grown in a cloud. […",
    ]
    assert talk.do("/show 2") == f"lab:b (round 2)\n{SNOW} [/INST]"
    assert talk.do("/show 2 1") == "lab:b (round 1)\nFirst of b."
    assert talk.do("/show 1 2") == f"lab:a (round 2)\n{RAIN}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/show 3", "moa: there is no proposal 3 (1 to 2)"),
        ("/show 1 3", "moa: there is no layer 3 (1 to 2)"),
        ("/show 1 x", "moa: 'x' is not a whole number"),
        ("/diff 1", "moa: /diff needs the numbers of two proposals (/diff 1 2)"),
        ("/diff 1 3", "moa: there is no proposal 3 (1 to 2)"),
        ("/copy it", "moa: /copy or /copy code, not /copy it"),
        ("/copy code", "moa: the reply holds no block of code"),
        ("/dry-run", "moa: /dry-run needs a prompt"),
    ],
)
def test_what_is_not_there_is_told(talk: Talk, line: str, said: str) -> None:
    proposed(talk)
    assert talk.do(line) == said


@pytest.mark.parametrize(
    "line", ["/show", "/show all", "/show 1", "/diff 1 2", "/why", "/copy", "/usage", "/remerge"]
)
def test_before_the_first_turn_there_is_nothing_to_look_at(talk: Talk, line: str) -> None:
    assert talk.do(line).startswith("moa: ")
    assert talk.upstream.requests == []


def test_show_all_puts_the_proposals_side_by_side(talk: Talk) -> None:
    proposed(talk)
    lines = [line.rstrip() for line in talk.do("/show all").splitlines()]
    assert re.fullmatch(r" ?lab:a +lab:b", lines[0])
    left, right = zip(*(re.split(r"  +", line.strip()) for line in lines[2:]), strict=True)
    assert " ".join(left) == RAIN
    assert " ".join(right) == f"{SNOW} [/INST]"


def test_more_than_can_be_read_side_by_side_stand_below_one_another(talk: Talk) -> None:
    talk.do("/models lab:a,lab:b,lab:c,lab:d", "hi")
    heads = [line.split() for line in talk.do("/show all").splitlines() if "lab:" in line]
    assert heads == [["lab:a", "lab:b"], ["lab:c", "lab:d"]]


def test_diff_puts_two_side_by_side(talk: Talk) -> None:
    talk.upstream.always("a", Reply(text="one two three"))
    talk.upstream.always("b", Reply(text="one zwei three"))
    talk.do("hi")
    lines = talk.do("/diff 2 1").splitlines()
    assert re.fullmatch(r" ?lab:b +lab:a *", lines[0])
    assert re.fullmatch(r" ?one zwei three +one two three *", lines[2])


def test_why_tells_of_each_passage_where_it_stands_and_of_each_proposal_its_share(
    talk: Talk,
) -> None:
    proposed(talk)
    said = talk.do("/why")
    text = " ".join(said.split())
    assert re.search(r"Rain falls when .* lab:a 100 ", text)
    assert re.search(r"Snow is made .* lab:b 100 ", text)
    assert "closest to: lab:a 53%, lab:b 47%" in text
    assert said.splitlines()[-1].endswith("not a proof of origin)")


def test_why_claims_nothing_of_a_reply_too_short_to_tell(talk: Talk) -> None:
    assert talk.do("hi", "/why") == "moa: the reply is too short to compare it to anything"


def test_retry_asks_all_again_and_replaces_the_turn(talk: Talk) -> None:
    talk.upstream.enqueue("agg", *(Reply(text=f"reply {n}") for n in range(3)))
    talk.do("first", "second", "/retry")
    second = ["first", "reply 0", "second"]
    assert talk.sent("a") == [["first"], second, second]
    assert talk.remembered() == [("first", "reply 0"), ("second", "reply 2")]


def test_retry_by_another_model_is_for_this_reply_alone(talk: Talk) -> None:
    talk.upstream.always("c", Reply(text="from c"))
    talk.do("first", "/retry lab:c", "second")
    assert talk.out.split("\n")[1] == "from c"
    assert [len(talk.upstream.chats(model)) for model in ("a", "agg", "c")] == [3, 2, 1]
    assert talk.remembered() == [("first", "from c"), ("second", "ok")]
    assert talk.session.profile.aggregator.model == "lab:agg"


@pytest.mark.parametrize("command", ["/retry", "/remerge"])
def test_asking_again_in_vain_leaves_the_old_turn(talk: Talk, command: str) -> None:
    talk.upstream.enqueue("agg", Reply(text="old"), REFUSED)
    talk.do("first", command)
    assert talk.remembered() == [("first", "old")]
    said = talk.do(f"{command} not a model")
    assert said == f"moa: {command}: `aggregator.model` is not a model name: 'not a model'"
    assert talk.remembered() == [("first", "old")]
    talk.do("second")
    assert talk.sent("agg")[-1] == ["first", "old", "second"]


def test_remerge_is_one_call_with_the_references_that_are_there(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text="reference of a"))
    talk.upstream.enqueue("b", Reply(text="reference of b"))
    talk.upstream.enqueue("agg", Reply(text="old"), Reply(text="new"))
    talk.do("first")
    before = len(talk.upstream.requests)
    talk.do("/remerge")
    assert len(talk.upstream.requests) == before + 1
    assert talk.sent("agg") == [["first"], ["first"]]
    assert talk.references() == talk.references(0) == ["reference of a", "reference of b"]
    assert talk.out == "new\n"
    assert talk.remembered() == [("first", "new")]
    talk.do("/remerge lab:c")
    assert talk.references(model="c") == ["reference of a", "reference of b"]
    assert "reference of b" in talk.do("/show 2")


def test_remerge_writes_the_reply_that_a_failed_aggregator_did_not(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text="reference of a"))
    talk.upstream.always("b", REFUSED)
    talk.upstream.enqueue("agg", REFUSED, Reply(text="new"))
    talk.do("first", "/remerge", "second")
    assert talk.references(1) == ["reference of a"]
    assert talk.remembered() == [("first", "new"), ("second", "ok")]


def test_usage_is_what_the_upstream_counted_whatever_became_of_the_turns(talk: Talk) -> None:
    talk.upstream.always("a", Reply(text="some words of a", usage=(11, 7)))
    talk.do("first", "/retry", "/remerge", "/remerge lab:c", "second", "/undo", "/new", "third")
    lines = talk.do("/usage").splitlines()
    counted: list[tuple[Any, int, int, int]] = [
        (model, int(calls), int(prompt), int(completion))
        for model, calls, prompt, completion in re.findall(
            r"^lab:(\w+) +(\d+) calls?, (\d+) tokens in, (\d+) out, cost unknown$",
            "\n".join(lines),
            re.MULTILINE,
        )
    ]
    assert len(counted) == len(lines) - 1 == 4
    total, tokens_in, tokens_out = (sum(row[place] for row in counted) for place in (1, 2, 3))
    assert lines[-1].split(maxsplit=2)[2] == (
        f"{total} calls, {tokens_in} tokens in, {tokens_out} out, cost unknown"
    )
    for model, calls, prompt, completion in counted:
        requests = talk.upstream.chats(model)
        assert calls == len(requests)
        assert prompt == sum(one.usage[0] for one in requests)
        assert completion == sum(one.usage[1] for one in requests)


def test_dry_run_sends_nothing_and_shows_what_would_be_sent(talk: Talk) -> None:
    talk.do("first")
    before = len(talk.upstream.requests)
    said = talk.do("/dry-run second [/INST]")
    assert len(talk.upstream.requests) == before
    assert talk.out == ""
    assert "nothing is sent" in said
    assert re.search(
        r"\[user\]\n +first\n +\[assistant\]\n +ok\n +\[user\]\n +second \[/INST\]", said
    )
    assert "1. <answer of lab:a in round 1>" in said
    assert "3 calls in all: about " in said


@pytest.mark.parametrize("command", ["/new", "/clear"])
def test_a_new_conversation_knows_nothing_of_the_old(talk: Talk, command: str) -> None:
    talk.do("first")
    assert talk.do(command) == "a new conversation"
    talk.do("second")
    assert talk.sent("agg") == [["first"], ["second"]]


def test_no_argument_breaks_a_command(talk: Talk) -> None:
    talk.do("first")
    odd = ["nan", "9" * 5000, "²", "[red]x[/red]", "\x1b[2J", "\udcff", "\0", "%s {x} \\", "1 2 3"]
    for name in COMMANDS.keys() - {"exit", "edit", "dry-run"}:
        for argument in odd:
            talk.upstream.enqueue("*", Reply())
            assert "\x1b" not in talk.do(f"/{name} {argument}")


# The clipboard.


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for clipboard tools, of which there are none else."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "TMUX", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    return folder


def tool(folder: Path, name: str, code: int = 0) -> Path:
    """A tool that writes its arguments and its input to the file that is returned."""
    log = folder / f"{name}.log"
    script = folder / name
    script.write_text(
        f"#!{sys.executable}\nimport sys\nprint('noise')\n"
        f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:]) + '|' + sys.stdin.read())\n"
        f"sys.exit({code})\n",
        "utf-8",
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return log


CODE = "Look:\n\n```sh\nls\n```\n\nor\n\n~~~py\nprint(1)\n\nprint(2)\n~~~\n\nDone."


@pytest.mark.parametrize(
    ("name", "variable", "arguments"),
    [
        ("pbcopy", None, ""),
        ("wl-copy", "WAYLAND_DISPLAY", ""),
        ("xclip", "DISPLAY", "-selection clipboard"),
        ("xsel", "DISPLAY", "--clipboard --input"),
        ("tmux", "TMUX", "load-buffer -w -"),
    ],
)
def test_copy_hands_the_reply_to_the_tool_that_is_there(
    talk: Talk,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str | None,
    arguments: str,
) -> None:
    log = tool(tools, name)
    if variable:
        monkeypatch.setenv(variable, "x")
    talk.upstream.always("agg", Reply(text=CODE))
    assert talk.do("hi", "/copy") == f"copied {len(CODE)} characters ({name})"
    assert log.read_text("utf-8") == f"{arguments}|{CODE}"
    assert "noise" not in talk.out
    talk.do("/copy code")
    assert log.read_text("utf-8") == f"{arguments}|print(1)\n\nprint(2)"


def test_a_tool_that_fails_or_belongs_to_another_machine_is_passed_over(
    talk: Talk, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    tool(tools, "xclip", code=1)
    log = tool(tools, "xsel")
    assert talk.do("hi", "/copy") == "copied 2 characters (xsel)"
    log.unlink()
    monkeypatch.setenv("SSH_CONNECTION", "far away")
    said = talk.do("/copy")
    assert said == "moa: there is no clipboard tool, and no terminal to ask"
    assert not log.exists()


def test_what_is_copied_is_only_text(talk: Talk, tools: Path) -> None:
    log = tool(tools, "pbcopy")
    # Pasted into a shell, this would be run.
    talk.upstream.always("agg", Reply(text="harmless\x1b[201~\r\nrm -rf /\x03"))
    talk.do("hi", "/copy")
    assert log.read_text("utf-8") == "|harmless\nrm -rf /"


def prompt_is_there(terminal: Terminal) -> bool:
    row = terminal.screen.display[terminal.screen.cursor.y]
    return row.rstrip() == "›" and terminal.modes() == (False, False)


@pytest.mark.parametrize("tmux", [False, True])
def test_without_a_tool_the_terminal_is_asked_through_tmux_too(
    moa: Moa, upstream: Upstream, tmp_path: Path, tmux: bool
) -> None:
    text = "Ünïcode and ```code```"
    upstream.always("agg", Reply(text=text))
    environment = {"PATH": str(tmp_path)} | ({"TMUX": "/tmp/x,1,0"} if tmux else {})
    with moa.terminal("chat", env=environment) as terminal:
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send("hi\r")
        terminal.wait_for("calls, ")
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send("/copy\r")
        # On the raw bytes: the emulator shows what a terminal that knows tmux hides.
        told = f"copied {len(text)} characters (the terminal".encode()
        terminal.wait_for(lambda: told in terminal.raw)
        raw = bytes(terminal.raw)
    encoded = base64.b64encode(text.encode())
    plain, wrapped = (
        b"\x1b]52;c;%b\x07" % encoded,
        b"\x1bPtmux;\x1b\x1b]52;c;%b\x07\x1b\\" % encoded,
    )
    assert raw.count(wrapped if tmux else plain) == 1
    assert raw.count(b"]52;") == 1


# The editor.


def test_multiline_swaps_enter_and_alt_enter() -> None:
    swapped = ChatOptions(multiline=True)
    assert typed("one\rtwo\nthree\x1b\r", options=swapped) == "one\ntwo\nthree"
    assert typed("one\x1b\rtwo\nthree\r") == "one\ntwo\nthree"


@pytest.mark.parametrize("multiline", [False, True])
def test_a_search_is_left_by_enter_either_way(multiline: bool) -> None:
    typed("the first question\r")
    options = ChatOptions(multiline=multiline)
    sends = "\x1b\r" if multiline else "\r"
    assert typed("\x12", "quest", "\r", f"\x05!{sends}", options=options) == "the first question!"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """$EDITOR puts a line before and one after what it is given, and copies that to a file."""
    given = tmp_path / "given"
    script = tmp_path / "editor.py"
    script.write_text(
        "import sys\npath = sys.argv[-1]\ntext = open(path).read()\n"
        f"open({str(given)!r}, 'w').write(path + '|' + text)\n"
        "open(path, 'w').write(f'above\\n{text}\\nbelow\\n')\n",
        "utf-8",
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    return given


def test_ctrl_x_ctrl_e_edits_the_line_elsewhere_and_does_not_send_it(writes: Path) -> None:
    assert typed("half a line\x18\x05", "!\r") == "above\nhalf a line\nbelow!"
    name, _, text = writes.read_text("utf-8").partition("|")
    assert (Path(name).suffix, text) == (".md", "half a line")


def test_vi_keys_edit_where_they_were_chosen() -> None:
    vi = ChatOptions(vi=True)
    assert typed("world", "\x1b", "0ihello \x1b", "A!\r", options=vi) == "hello world!"
    assert typed("one", "\x1b", "obelow\r", options=vi) == "one\nbelow"
    assert typed("world", "\x1b", "\r", options=vi) == "world"
    assert typed("two\nlines\r", options=vi) == "two\nlines"


def test_emacs_keys_edit_elsewhere() -> None:
    assert typed("world\x01hello \x05!\r") == "hello world!"
    assert typed("one two\x1bbX\r") == "one Xtwo"


def test_edit_opens_the_editor_and_its_text_waits_at_the_prompt(
    moa: Moa, upstream: Upstream, writes: Path
) -> None:
    with moa.terminal("chat", env={"EDITOR": os.environ["EDITOR"]}) as terminal:
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send("/edit some text\r")
        terminal.wait_for("below")
        assert upstream.requests == []
        assert "› above" in terminal.shown()
        terminal.send("!\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == "above\nsome text\nbelow!"
    assert writes.read_text("utf-8").endswith("|some text")


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("false", "the editor `false` ended with status 1"),
        ("no-such-editor --x", "the editor `no-such-editor --x` could not be started"),
        ("'", "the editor `'` could not be started"),
    ],
)
def test_an_editor_that_fails_loses_no_text(moa: Moa, editor: str, said: str) -> None:
    with moa.terminal("chat", columns=120, env={"VISUAL": editor}) as terminal:
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send("/edit some text\r")
        terminal.wait_for(said)
        terminal.wait_for("› some text")


_SAVES = "import sys; open(sys.argv[-1], 'wb').write({data!r})"


def saves(tmp_path: Path, data: bytes) -> str:
    """An editor that saves these bytes, whatever it is given."""
    script = tmp_path / "saves.py"
    script.write_text(_SAVES.format(data=data), "utf-8")
    return f"{sys.executable} {script}"


@pytest.mark.parametrize("open_it", ["/edit\r", "\x18\x05"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_an_editor_on_windows_saves_is_read(
    moa: Moa, upstream: Upstream, tmp_path: Path, open_it: str, encoding: str
) -> None:
    editor = saves(tmp_path, "Gr\u00fc\u00dfe\r\nund mehr\r\n".encode(encoding))
    with moa.terminal("chat", env={"VISUAL": editor}) as terminal:
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send(open_it)
        terminal.wait_for("und mehr")
        terminal.send("\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == "Gr\u00fc\u00dfe\nund mehr"


@pytest.mark.parametrize("open_it", ["/edit half a line\r", "half a line\x18\x05"])
def test_what_an_editor_saves_in_another_encoding_is_told_and_loses_no_text(
    moa: Moa, tmp_path: Path, open_it: str
) -> None:
    editor = saves(tmp_path, b"gr\xfc\xdfe")
    with moa.terminal("chat", columns=160, env={"VISUAL": editor}) as terminal:
        terminal.wait_for(lambda: prompt_is_there(terminal))
        terminal.send(open_it)
        terminal.wait_for("is not UTF-8 text: byte 3 of line 1 is 0xFC")
        terminal.wait_for("\u203a half a line")
