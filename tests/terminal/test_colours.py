"""The colours of replies: themes, styles of the user's own, and none."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest

from moa_cli.config.palette import UNCHANGED, Palette, Theme
from moa_cli.markdown.drawing import Color, render_markdown
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

TEXT = (
    "# Head\n\nSome `code` and a [link](https://e.org/x).\n\n> quoted\n\n"
    "```python\ndef f():  # why\n    return 'text' + 1\n```\n"
)
STYLE = re.compile(r"\x1b\[([0-9;]*)m")


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("theme", "backgrounds"),
    [("dark", ["#000000", "#1e1e1e", "#2e3440"]), ("light", ["#ffffff", "#fdf6e3"])],
)
def test_each_colour_of_a_theme_can_be_read_on_its_background(
    theme: Theme, backgrounds: list[str]
) -> None:
    # WCAG 2.2, 1.4.3: text of contrast 4.5 or more.
    for style in asdict(UNCHANGED.over(theme)).values():
        color = re.search("#[0-9a-f]{6}", style)
        assert color
        for background in backgrounds:
            lights = sorted((_luminance(color.group()), _luminance(background)))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (style, background)


@pytest.mark.parametrize("theme", ["auto", "dark", "light"])
@pytest.mark.parametrize("color", ["16", "256", "truecolor"])
def test_a_theme_changes_no_text(theme: Theme, color: Color) -> None:
    auto = render_markdown(TEXT, width=60, color="16")
    palette = UNCHANGED.over(theme)
    themed = render_markdown(TEXT, width=60, color=color, palette=palette)
    assert [STYLE.sub("", line) for line in themed] == [STYLE.sub("", line) for line in auto]
    assert (themed == auto) == (theme == "auto")


def test_a_style_of_the_user_s_own_comes_before_the_theme_s() -> None:
    palette = Palette(heading="italic #010203 on #040506", comment="red").over("dark")
    lines = render_markdown(TEXT, width=60, color="truecolor", palette=palette)
    assert "38;2;1;2;3;48;2;4;5;6" in lines[0]
    assert any(re.search(r"\x1b\[31m# why", line) for line in lines)
    assert palette.code == UNCHANGED.over("dark").code


def _configure(moa: Moa, **settings: Any) -> None:
    moa.configure(**moa.settings(), **settings)


def _styles(moa: Moa, *arguments: str, **env: str) -> set[str]:
    """The styles of a reply at a terminal."""
    # Without the status line, which has styles of its own.
    command = ("ask", "hi", "--no-live", *arguments)
    with moa.terminal(*command, env={"COLORTERM": "truecolor", **env}) as terminal:
        assert terminal.wait() == 0
        assert "Head" in "\n".join(terminal.lines())
        reply = bytes(terminal.raw).decode().rpartition("Head")
        return set(STYLE.findall(reply[0][-40:] + reply[2]))


def test_the_theme_is_chosen_by_option_variable_or_setting(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=TEXT))
    auto, dark = _styles(moa), _styles(moa, "--theme", "dark")
    assert not any("38;2" in style for style in auto)
    assert any("38;2" in style for style in dark)
    assert _styles(moa, MOA_THEME="dark") == dark
    _configure(moa, theme="dark", palette={"code": "#010203"})
    assert any("38;2;1;2;3" in style for style in _styles(moa))
    assert not any("38;2;1;2;3" in style for style in _styles(moa, NO_COLOR="1"))


@pytest.mark.parametrize("way", ["option", "NO_COLOR"])
def test_without_colours_a_reply_has_no_style_and_no_link(
    moa: Moa, upstream: Upstream, way: str
) -> None:
    upstream.always("agg", Reply(text=TEXT))
    _configure(moa, theme="dark", palette={"code": "#010203"})
    env = {"NO_COLOR": "1"} if way == "NO_COLOR" else {}
    arguments = ["--theme", "none"] if way == "option" else []
    with moa.terminal("ask", "hi", *arguments, env=env) as terminal:
        assert terminal.wait() == 0
        assert "# Head" in terminal.lines()
        raw = bytes(terminal.raw)
    assert not re.search(rb"\x1b\[[0-9;]*(?:3|4|9|10)[0-9][0-9;]*m", raw)
    assert b"\x1b]8;" not in raw


def test_links_can_be_clicked_unless_the_user_or_the_terminal_does_not_want_it(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text=TEXT))

    def raw(**env: str) -> bytes:
        with moa.terminal("ask", "hi", env=env) as terminal:
            assert terminal.wait() == 0
            assert "(https://e.org/x)" in "\n".join(terminal.lines())
            return bytes(terminal.raw)

    assert re.search(rb"\x1b\]8;id=[0-9a-f]+;https://e\.org/x\x1b\\", raw())
    assert b"\x1b]8;" not in raw(TERM="linux")
    _configure(moa, hyperlinks=False)
    assert b"\x1b]8;" not in raw()
    assert b"\x1b]8;" not in moa.run("ask", "hi").out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"theme": "drak"}, "`theme`"),
        ({"palette": {"code": "bold crimsom"}}, "`palette.code` is not a style: 'crimsom'"),
        ({"palette": {"code": "link https://e.org"}}, "`palette.code` is not a style: 'link'"),
        ({"palette": {"code": "red blue"}}, "`palette.code` has more than one colour"),
        ({"palette": {"code": "red on"}}, "`palette.code` is not a style: 'on'"),
        ({"palette": {"cod": "red"}}, "did you mean `code`?"),
    ],
)
def test_a_wrong_style_is_refused(moa: Moa, settings: dict[str, Any], said: str) -> None:
    moa.configure(**settings)
    ran = moa.run("ask", "hi")
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.strip().split("\n")) == 1


def test_a_theme_that_is_none_is_refused(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "--theme", "drak")
    assert ran.code == 2
    assert "'drak' is not one of auto, dark, light, none" in " ".join(ran.err.split())
