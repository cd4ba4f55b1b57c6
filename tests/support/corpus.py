"""Replies to draw, and ways to split them into chunks."""

import random
from collections.abc import Iterator

CORPUS = {
    "headings": "# One `x`\ntext\n## Two\n\n### Three ###\n#### Four\n",
    "setext": "Title\n=====\n\nSecond\nline\n------\nafter\n",
    "numbered list of 12": "".join(f"{n}. item {n}\n" for n in range(1, 13)),
    "all ones": "1. a\n1. b\n1. c\n\nafter\n",
    "starting at 7": "7) a\n8) b\n9) c\n10) d\n11) e\n",
    "nested lists": "- a\n  - b\n    1. c\n    2. d\n\n       more\n  - e\n- f\n\n- g\n* other\n",
    "code in a list": "1. Do:\n\n   ```sh\n   make\n   ```\n\n2. Then:\n   ```\n   x\n   ```\n",
    "table": "Above\n\n| a | b |\n|---|--:|\n| `1` | **2** |\n| [l](http://x) | 漢字 |\n\nBelow\n",
    "quotes": "> one\n> two\n>\n> - a\n> - b\n>\n> > inner\nlazy\n\nafter\n",
    "fences": "```python\ndef f():\n\treturn\n```\n\n~~~\n```\n~~~\n\n`````js\n```\n````\n`````\n",
    "open fence": "text\n```c\nint x; /* open\n" + "still */ int y;\n" * 40,
    "long fence": "```python\n" + "def f():\n    '''doc\n    doc'''\n\n" * 60 + "```\nafter\n",
    "blank code": "```\n" + "\n" * 20 + "x\n" + "\n" * 20 + "```\nafter\n\n```\n\n```\nend\n",
    "indented code": "text\n\n    code\n\n    more\n\nafter\n",
    "CRLF": "# A\r\n\r\n- a\r\n- b\r\n\r\n```\r\nx\r\ny\r\n```\r\nend\r\n",
    "separators": "one\u2028still one\u2029still\n\n\u2028\n\n- a\u2028b\n",
    "brackets": "arr[i] [/INST] [red]x[/red] [/usr/bin]\n\n- arr[i]\n\n```\n[red]x[/red]\n```\n",
    "html": "List<String> and <div>\n\n<div>\nblock\n</div>\n\n<!-- note -->\nMap<K, V>\n",
    "wide": "漢字かな交じり文" * 12 + "\n\n😀 👩‍👩‍👧 ⚠️ 🎉 emoji\n",
    "links": "[a](http://a.b/c) <http://auto.link> ![p](http://p/i) <me@x.y>\n\n[d]: /d\n[d]\n",
    "definitions": "[x]: http://x.y/1\n\nSee [x] and [late].\n\n[late]: http://late.z/2\n\nEnd.\n",
    "uses and definitions": "[a] [b]\n\n[a]: http://a.b\n\nThen [a], [a] and [c].\n\n"
    "[b]: http://b\n",
    "math": "Let \\(a_1*b*c\\) be $a_1*b$:\n\\[\n- x_1 * y *\n# z\n\\]\n\n"
    "$$ x*y*z $$\nso\n\n- $$\n  x\n  $$\n",
    "prices": "It costs $5 and *$6*, or $7*2*3.\n\n$$\nnever closed *so*\n\n*after*\n"
    "\n\\[1\\] $$\n",
    "breaks": "| a<br>b | c |\n|---|---|\n| d<BR/>e | f |\n\none<br>two <br>\nand a <br> tag\n",
    "addresses": "**https://a.b/c_d_*f*** (http://x.y/(z)). https://e.org/漢字。 a://b http:// x\n",
    "rules": "a\n\n---\nb\n***\n- - -\nc\n",
    "blank": "\n\n  \n\n",
    "nothing": "",
    "300 lines": "".join(
        f"{'- ' if n % 7 else ''}line-{n:03} of words\n{'' if n % 5 else chr(10)}"
        for n in range(300)
    ),
}

LINES = [
    *[
        "",
        "",
        "",
        "para",
        "more *em* `c`",
        "# H",
        "===",
        "---",
        "***",
        "[x]: /url",
        "'title'",
        "[x]",
    ],
    *["- a", "- b", "  - n", "    - nn", " - c", "   - d", "* s", "-", "- - x", "- ```", "  ```py"],
    *["1. one", "2. two", "10. ten", "12. t", "1) x", "1.", "3. ```", "   ```", "- [x]: /u", "   "],
    *[
        "   cont",
        "    code",
        "\tcode",
        "> q",
        "> - ql",
        ">",
        "> > qq",
        "> ```",
        "lazy",
        "[z]:",
        "/zz",
    ],
    *["```", "```python", "~~~", "````", "```` ```", "  ```", "    ```", "/* c", "*/"],
    *[
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "a|b",
        "\\[",
        "\\]",
        "$$",
        "$$ x",
        "$$ x=1",
        "$$x$$.",
        "  $$",
        "- \\[",
        "> $$",
        "- | a | b |",
        "  |---|---|",
        "<div>",
        "a\\",
    ],
]


def chunks_of(text: str, seed: int, largest: int) -> Iterator[str]:
    rng = random.Random(seed)
    at = 0
    while at < len(text):
        size = rng.randint(1, largest)
        yield text[at : at + size]
        at += size
