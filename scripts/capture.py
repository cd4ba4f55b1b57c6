"""Draw docs/images/board.svg and docs/images/reply.svg: `moa chat`, as it looks in a terminal.

The program runs at a pseudo-terminal against a scripted upstream; what it writes is read from a
terminal emulator. With a folder as argument, the images go there.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char
from rich.color import parse_rgb_hex
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COLUMNS, ROWS = 108, 30
FRAME_END = b"\x1b[?2026l"
PROMPT = "Why is the sky blue?"
FAST, STEADY, SLOW, WRITER = "llama-3.3-70b", "qwen2.5-72b", "deepseek-v3", "mistral-large"

ANSWERS = {
    FAST: Reply(
        delay=0.25,
        pause=0.011,
        text="""\
The sky is blue because of **Rayleigh scattering**.

Sunlight holds all colours. When it meets molecules of nitrogen and oxygen, which are far smaller \
than a wavelength of light, short waves are thrown to the side much more than long ones:

- blue (450 nm) about six times as much as red (700 nm),
- violet still more, but the Sun sends less of it and our eyes see it poorly.

So from every part of the sky some blue light reaches you, while red goes straight on. In the \
evening the path through the air is long, the blue is gone by the time the light arrives, and \
the Sun looks red.
""",
    ),
    STEADY: Reply(
        delay=0.4,
        pause=0.022,
        text="""\
**Short answer:** air scatters blue light more strongly than red.

1. Sunlight is a mixture of all visible wavelengths.
2. Molecules of air are much smaller than these wavelengths, so they scatter by Rayleigh's law: \
in proportion to 1/λ⁴.
3. Halving the wavelength therefore scatters light sixteen times as much.
4. The scattered light comes from all directions, and it is mostly blue.

Why not violet? The Sun emits less violet than blue, some of it is absorbed high in the \
atmosphere, and the cones of the human eye answer to it only weakly. Seen from the Moon, where \
there is no air to scatter anything, the sky is black even at noon, and the Sun is white.
""",
    ),
    SLOW: Reply(
        delay=0.7,
        pause=0.032,
        text="""\
It is often said that the sky mirrors the sea; it does not. The colour is made in the air.

An electromagnetic wave shakes the electrons of a molecule, and the shaken charge radiates in \
all directions. The power radiated grows with the *fourth power* of the frequency, which favours \
the blue end of the spectrum. Dust and droplets, being larger than the wavelength, scatter all \
colours alike, which is why haze and clouds are white.

At sunset the light crosses some forty times as much air as at noon. Nearly all the blue has \
been scattered out of the direct beam by then, and what is left of it is orange and red.
""",
    ),
}
MERGED = """\
## Why the sky is blue

Molecules of air scatter **short waves far more than long ones**, so blue light reaches you from \
every side, while the rest of the sunlight goes nearly straight on.

- **The law.** Rayleigh scattering grows with the fourth power of the frequency, `1/λ⁴`.
- **Why not violet?** The Sun sends less of it, and the eye answers to it only weakly.
- **Why red sunsets?** The long way through the air takes the blue out of the direct beam.

```python
def scattering(nm: float) -> float:
    return (700 / nm) ** 4  # against red light
```

| colour | wavelength | scattered |
|:-------|-----------:|----------:|
| red    |     700 nm |        1× |
| green  |     550 nm |      2.6× |
| blue   |     450 nm |      5.9× |
"""

# rich's own template loads its font from another host. In these fonts a box of 21 px is as high
# as rich's rows, so that vertical lines meet; the ratio is that of their widths to 20 px.
RATIO = 21 * 0.602 / 20
TEMPLATE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font: 21px Menlo, "DejaVu Sans Mono", "Liberation Mono", Consolas, monospace;
}}
.{unique_id}-title {{ font: bold 18px Helvetica, Arial, sans-serif; }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""
# Foreground, background, the eight colours, and the bright ones.
COLOURS = """
    d6dde5 161b22
    484f58 ff7b72 56d364 e3b341 79c0ff d2a8ff 56d4dd d6dde5
    7d8590 ffa198 7ee787 f2cc60 a5d6ff e2c5ff 76e3ea ffffff
"""


class Screen(pyte.Screen):
    """pyte knows no faint text: here its blinking, which `moa` does not use, stands for it."""

    def select_graphic_rendition(self, *attrs: int) -> None:
        """Set the attributes of what comes."""
        # In 38;2;R;G;B and the like, a 2 does not mean faint.
        if 38 not in attrs and 48 not in attrs:
            faint = {2: (5,), 22: (22, 25)}
            attrs = tuple(code for one in attrs for code in faint.get(one, (one,)))
        super().select_graphic_rendition(*attrs)


def seen(written: bytes) -> list[Text]:
    """The rows, in their colours, of a terminal to which this was written."""
    screen = Screen(COLUMNS, ROWS)
    pyte.ByteStream(screen).feed(written)
    if not screen.cursor.hidden:
        line, column = screen.buffer[screen.cursor.y], screen.cursor.x
        line[column] = line[column]._replace(reverse=True)
    rows = [row(screen, number) for number in range(ROWS)]
    while not rows[-1].plain.strip():
        rows.pop()
    return rows


def row(screen: Screen, number: int) -> Text:
    """One row of the emulator's."""
    text = Text(no_wrap=True)
    cells = [screen.buffer[number][column] for column in range(screen.columns)]
    for style, run in groupby(cells, key=style_of):
        text.append("".join(cell.data for cell in run), style)
    return text


def style_of(cell: Char) -> Style:
    """How the emulator shows a cell."""
    return Style(
        color=colour(cell.fg),
        bgcolor=colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        strike=cell.strikethrough,
        reverse=cell.reverse,
        dim=cell.blink,
    )


def colour(name: str) -> str:
    """rich's name for a colour of pyte's."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def write(name: str, rows: list[Text], folder: Path) -> None:
    """Draw the rows into a file."""
    colours: list[tuple[int, int, int]] = [parse_rgb_hex(one) for one in COLOURS.split()]
    front, back, *others = colours
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", _environ={}
    )
    for one in rows:
        console.print(one, crop=False)
    svg = console.export_svg(
        title="moa chat",
        theme=TerminalTheme(back, front, others[:8], others[8:]),
        code_format=TEMPLATE,
        font_aspect_ratio=RATIO,
        unique_id=f"moa-{name}",
    )
    # Whatever font is there, it is stretched to the cells; nothing is left to be clipped.
    svg = re.sub(r' clip-path="[^"]*"', ' lengthAdjust="spacingAndGlyphs"', svg)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8")
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size:,} bytes")


def main() -> None:
    """Hold the conversation, and draw it twice."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory(prefix="moa-") as home, Upstream() as upstream:
        for model, answer in ANSWERS.items():
            upstream.enqueue(model, answer)
        upstream.enqueue(WRITER, Reply(text=MERGED, delay=0.5, pause=0.012))
        moa = Moa(Path(home), upstream.url)
        moa.configure(
            profile="trio", providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}
        )
        proposers = [{"model": f"lab:{model}", "name": model} for model in ANSWERS]
        moa.profile("trio", *proposers, aggregator=WRITER)
        with moa.terminal("chat", columns=COLUMNS, rows=ROWS) as terminal:
            terminal.wait_for("›")
            terminal.send(f"{PROMPT}\r")
            terminal.wait_for(f"✓ {FAST}")
            terminal.wait_for(lambda: terminal.raw.endswith(FRAME_END))
            board = bytes(terminal.raw)
            terminal.wait_for("tokens in")
            terminal.wait_for(
                lambda: terminal.shown()[-1].startswith("trio") and terminal.shows_cursor()
            )
            reply = bytes(terminal.raw)
            terminal.send("\x04")
            terminal.wait()
    write("board", seen(board), folder)
    write("reply", seen(reply), folder)


if __name__ == "__main__":
    main()
