"""Conversations written out as Markdown and as a web page: whole, readable, and harmless
whatever a model said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from moa_cli.core.conversation import (
    Failure,
    KeptConversation,
    KeptTurn,
    Part,
    Proposal,
    Turn,
    Usage,
)
from moa_cli.documents.html import page
from moa_cli.documents.html_prose import prose
from moa_cli.documents.markdown import document
from tests.support.corpus import CORPUS, LINES
from tests.support.hostile import HOSTILE
from tests.support.web_pages import Page, everywhere, html

GOOD = Proposal(1, 0, "a_b", "lab:a", "one", usage=Usage(3, 2, calls=1, cost=0.25), seconds=1.5)
THOUGHT = Proposal(1, 1, "b", "lab:b", "two", reasoning="hm", usage=Usage(3, 1, calls=1))
LOST = Proposal(2, 0, "c", "lab:c", "", error=Failure("ServerFailed", "it <failed>"))
TURN = Turn(
    user="why?",
    reply="# So\n\n*it is*",
    status="finished",
    profile="trio",
    proposals=((GOOD, THOUGHT), (LOST,)),
    model="lab:agg",
    answered_by="agg-2",
    reasoning="thinking",
    usage=Usage(9, 4, calls=3, cost=0.5),
    seconds=2.5,
    lost=("c: it <failed>",),
)


def conversation(*turns: Turn, title: str = "Why *it* is") -> KeptConversation:
    kept = tuple(KeptTurn(turn, 0.0) for turn in turns)
    return KeptConversation("2345678923", title, "trio", 1_000_000_000.0, 0.0, kept)


def markdown(*conversations: KeptConversation, proposals: bool = False) -> str:
    return "".join(document(conversations, proposals=proposals))


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "details"),
    *("summary", "div", "figure", "figcaption", "time", "b", "span", "a", "em", "strong", "s"),
    *("table", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "p", "br", "hr"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "code", "pre", "blockquote"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "role", "aria-label"),
    *("datetime", "href", "rel", "title", "style", "start"),
}


def check_harmless(text: str) -> None:
    """No script, no handler, no address but http, https and mailto, nothing that acts."""
    made = Page(text)
    for tag, attributes in made.tags:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"] or "", re.IGNORECASE)
            assert attributes["rel"] == "noopener noreferrer nofollow"
        if "style" in attributes:
            assert re.fullmatch(r"text-align:(left|right|center)", attributes["style"] or "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert text.count("<style>") == text.count("Content-Security-Policy") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_page_can_act(name: str) -> None:
    check_harmless(html(everywhere(HOSTILE[name])))
    check_harmless(html(everywhere(HOSTILE[name]), conversation(TURN)))


MARKS = ["<", ">", '"', "'", "&", "&#x202e;", "\x9d", "[", "]("]
PIECES = st.lists(
    st.sampled_from([*HOSTILE.values(), *CORPUS.values(), *LINES, *MARKS]) | st.text(max_size=5),
    max_size=6,
)
TEXTS = PIECES.map("\n".join) | PIECES.map("".join)


@given(TEXTS)
def test_nothing_in_a_page_of_any_text_can_act(text: str) -> None:
    check_harmless(html(everywhere(text)))


def test_a_page_forbids_scripts_and_the_network_and_tells_what_it_is() -> None:
    tags = Page(html(conversation(TURN))).tags
    assert ("html", {"lang": "en"}) in tags
    metas = {
        attributes.get("name") or attributes.get("http-equiv"): attributes.get("content")
        for tag, attributes in tags
        if tag == "meta"
    }
    assert metas["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert "<title>Why *it* is</title>" in html(conversation(TURN))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PHNjcmlwdD4=",
        'data:image/png;base64,AAAA" onerror="x',
        "javascript:x",
    ],
)
def test_a_page_names_an_image_that_it_may_not_show(url: str) -> None:
    part = Part("image", url=url, name="<b>photo</b>")
    text = "".join(page([conversation(replace(TURN, parts=(part,)))], images=True))
    check_harmless(text)
    assert "<img" not in text
    assert "attached &lt;b&gt;photo&lt;/b&gt; (" in text


def test_estimated_figures_of_a_proposal_are_marked() -> None:
    counted = replace(GOOD.usage, estimated_calls=1, estimated_completion_tokens=2)
    turn = TURN.with_proposals(((replace(GOOD, usage=counted),),))
    assert "1.5 s, ~2 tokens, ~$0.25" in Page(html(conversation(turn))).text


def test_a_page_shows_the_reply_and_folds_the_rest_under_it() -> None:
    text = html(conversation(TURN))
    made = Page(text)
    parts = ("why?", "<h3>So</h3>", "lab:agg (agg-2)", "thinking", "3 proposals in 2 rounds")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("<details") == text.count("</details>") == 5
    assert not any("open" in attributes for tag, attributes in made.tags if tag == "details")
    for part in (
        "3 calls, 9 tokens in, 4 out, $0.50, 2.5 s",
        "lost c: it <failed>",
        "1.5 s, 2 tokens, $0.25",
    ):
        assert part in made.text


def test_code_is_coloured_and_comes_through_whole() -> None:
    code = "\n\n  def f(x):\n\treturn x < 1 & 2  # '\"\n\n"
    reply = f"```python\n{code}```\n\n```nosuch\n{code}```"
    text = html(conversation(Turn(user="x", reply=reply)))
    assert '<span class="k">def</span>' in text
    assert Page(text).text.count(code) == 2


def test_an_image_is_a_link_and_never_loaded() -> None:
    reply = "![a *b*](https://x.y/i.png) [![in](http://x.y/i) link](https://x.y/) ![](http://x.y/n)"
    tags = Page(html(conversation(Turn(user="x", reply=reply)))).tags
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == ["https://x.y/i.png", "https://x.y/", "http://x.y/n"]


def test_several_conversations_are_folded_on_one_page() -> None:
    text = html(conversation(TURN), conversation(TURN, title="Other"))
    assert "<title>Conversations</title>" in text
    assert text.count('<details class="conversation">') == 2
    assert "<h1>Conversations</h1>" in html()


def top_level(text: str) -> Iterator[tuple[str, str]]:
    """The kinds of the blocks of a Markdown document, and what they say."""
    # The text of a block is not looked into, which would take the square of its brackets.
    tokens = MarkdownIt("commonmark", {"maxNesting": 250}).disable("inline").parse(text)
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.level == 0 and token.nesting >= 0:
            yield token.type, following.content if token.nesting else token.content


def test_a_document_reads_well() -> None:
    text = markdown(conversation(TURN, Turn(user="and\nthen?\n\n# x")), proposals=True)
    assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC[-+:\d]*", "DATE", text) == (
        "# Why \\*it\\* is\n\nDATE · profile `trio` · 2 turns\n\n"
        "> why?\n\n# So\n\n*it is*\n\n"
        "*`lab:agg (agg-2)` · 3 calls, 9 tokens in, 4 out, $0.50, 2.5 s*\n\n"
        "*lost c: it \\<failed\\>*\n\n"
        "<details><summary>a_b (round 1): 1.5 s, 2 tokens, $0.25</summary>\n\none\n\n</details>\n\n"
        "<details><summary>b (round 1): 0.0 s, 1 token</summary>\n\ntwo\n\n</details>\n\n"
        "<details><summary>c (round 2): lost: it &lt;failed&gt;</summary>\n\n</details>\n"
        "\n---\n\n"
        "> and  \n> then?\n>\n> # x\n\n**(open)**\n"
    )
    assert "<details>" not in markdown(conversation(TURN))


@pytest.mark.parametrize("name", [*CORPUS, *HOSTILE])
def test_a_prompt_a_reply_and_a_proposal_end_where_they_end(name: str) -> None:
    text = {**CORPUS, **HOSTILE}[name]
    proposal = Proposal(1, 0, "a", "lab:a", text)
    first = Turn(user=text, reply=text, status="finished", proposals=((proposal,),), model="m")
    last = Turn(user="LAST", reply="END", status="finished", model="m")
    blocks = list(top_level(markdown(conversation(first, last), proposals=True)))
    assert blocks[-4:] == [
        ("hr", ""),
        ("blockquote_open", ""),
        ("paragraph_open", "END"),
        ("paragraph_open", "*`m`*"),
    ]
    opened = [content.strip() for kind, content in blocks if kind == "html_block"]
    assert opened.count("</details>") == 1
    assert blocks[2][0] == "blockquote_open" or not text.strip()


@given(TEXTS)
def test_a_document_of_any_text_begins_with_a_title_and_holds_nothing_that_acts(
    text: str,
) -> None:
    made = markdown(everywhere(text), proposals=True)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", made)
    assert next(top_level(made))[0] == "heading_open"


def test_a_fence_is_longer_than_any_run_of_backticks_in_it() -> None:
    made = markdown(conversation(Turn(user="<b>\n`````\nx\n`````")))
    assert "> ``````markdown\n> <b>\n> `````\n> x\n> `````\n> ``````\n" in made


def test_a_row_with_more_cells_than_its_table_has_columns_loses_nothing() -> None:
    made = prose("|op|is|\n|-|-|\n| `a | b` | either |\n| x | y | or |\n")
    assert re.findall(r"<td>(.*)</td>", made) == ["<code>a | b</code>", "either", "x", "y | or"]
