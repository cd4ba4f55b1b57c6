"""What was said is found again from the command line, in whatever script and however typed."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.store.store import Store
from tests.support.command import Moa
from tests.support.kept import keep
from tests.support.upstream import Reply, Upstream

TALKS = {
    "proxies": ("how do reverse proxies work?", "They pass each request on."),
    "running": ("my knees hurt", "Stop running for a week; then run less."),
    "unparseable": ("what is wrong with this date?", "It is unparseable, foo-bar says."),
    "cafe": ("Wo ist das Café?", "Neben dem Haus von Frau Müller, in der Weißen Straße."),
    "upper": ("ΚΑΛΗΜΕΡΑ ΟΔΟΣ", "ПРИВЕТ, ЁЛКА"),
    "chinese": ("今天天气怎么样？", "北京今天有雨，适合在家学习机器学习。"),
    "japanese": ("東京タワーの高さは？", "ﾀﾜｰは333メートルです。"),
    "korean": ("한국어를 배우고 싶어요", "매일 조금씩 연습하세요."),
    "thai": ("อากาศวันนี้เป็นอย่างไร", "ฝนตกหนักในกรุงเทพมหานคร"),
    "signs": ("why C++ and not C?", "Call a.b() => 'NEAR' the col:umn * 2, 🚀🚀"),
    "versions": ("is v1.2.3 out?", "Yes, for llama3.1:8b and Python3.11."),
    "decomposed": ("re\u0301sume\u0301 da\u0301tum", "naïve ﬁle ＦＵＬＬ H₂O"),
}
FOUND = [
    # Whole words, other forms, beginnings, parts.
    ("proxies", ["proxies"]),
    ("proxy", ["proxies"]),
    ("proxying", ["proxies"]),
    ("run", ["running"]),
    ("runs", ["running"]),
    ("pars", ["unparseable"]),
    ("parse", ["unparseable"]),
    ("knee hurting", ["running"]),
    ("reques", ["proxies"]),
    # Accents, cases, ways of writing.
    ("cafe", ["cafe"]),
    ("CAFÉ", ["cafe"]),
    ("cafe\u0301", ["cafe"]),
    ("Muller", ["cafe"]),
    ("müller", ["cafe"]),
    ("strasse", ["cafe"]),
    ("STRAẞE", ["cafe"]),
    ("weissen", ["cafe"]),
    ("καλημέρα", ["upper"]),
    ("οδος", ["upper"]),
    ("привет елка", ["upper"]),
    ("résumé", ["decomposed"]),
    ("resume datum", ["decomposed"]),
    ("naive file full", ["decomposed"]),
    ("h2o", ["decomposed"]),
    # Scripts without spaces, from one character on.
    ("雨", ["chinese"]),
    ("天", ["chinese"]),
    ("天气", ["chinese"]),
    ("机器学习", ["chinese"]),
    ("今天 学习", ["chinese"]),
    ("今天学习", []),
    ("塔", []),
    ("東", ["japanese"]),
    ("タワー", ["japanese"]),
    ("さは", ["japanese"]),
    ("어", ["korean"]),
    ("국어", ["korean"]),
    ("한국", ["korean"]),
    ("วันนี้", ["thai"]),
    ("กรุงเทพ", ["thai"]),
    ("ฝ", ["thai"]),
    ("🚀", ["signs"]),
    # Phrases.
    ('"reverse proxies"', ["proxies"]),
    ('"proxies reverse"', []),
    ('"proxy"', []),
    ('"pass each" work', ["proxies"]),
    ("“for a week”", ["running"]),
    # Numbers of versions, also behind a word.
    ("1.2.3", ["versions"]),
    ("1.2", ["versions"]),
    ("2.3", ["versions"]),
    ("v1.2", ["versions"]),
    ("3.1", ["versions"]),
    ("3.11 out", ["versions"]),
    ("1.1", []),
    ("8.1", []),
    ('"1.2.3"', []),
    # Signs are no syntax.
    ("foo-bar", ["unparseable"]),
    ("bar-foo", []),
    ("C++", ["signs"]),
    ("a.b()", ["signs"]),
    ("=>", ["signs"]),
    ("NEAR", ["signs"]),
    ("col:umn", ["signs"]),
    ("week NOT knees", []),
    ("week OR", []),
    ('"', []),
    ('week "', ["running"]),
    ("wee*", ["running"]),
    ("(week", ["running"]),
    ("^week", ["running"]),
    ("-week", ["running"]),
    ("week - less", ["running"]),
    ("giraffe", []),
]


@pytest.fixture
def talks(moa: Moa) -> dict[str, str]:
    """The ids of the conversations of TALKS, with their names."""
    return {keep(moa, talk): name for name, talk in TALKS.items()}


def file_of(moa: Moa) -> Path:
    return moa.state.parent / "data" / "conversations.db"


def hits(moa: Moa, *words: str) -> list[dict[str, Any]]:
    ran = moa.run("history", "search", "--json", "--", *words)
    assert ran.code == 0, ran.err
    assert (ran.err == "moa: nothing found\n") == (ran.text == "[]\n")
    found: list[dict[str, Any]] = json.loads(ran.text)
    return found


def names(talks: dict[str, str], found: Iterable[dict[str, Any]]) -> list[str]:
    return [talks[hit["conversation"]] for hit in found]


def test_words_are_found_however_they_are_typed(moa: Moa, talks: dict[str, str]) -> None:
    with closing(Store.open(file_of(moa))) as store:
        found = {
            typed: [talks[hit.conversation] for hit in store.search(typed)] for typed, _ in FOUND
        }
        listed = {
            typed: [talks[match.summary.id] for match in store.matching(typed)]
            for typed, _ in FOUND
        }
    assert found == listed == dict(FOUND)


@pytest.mark.parametrize(
    "typed", ["proxy", "pars", "Muller", "天", "국어", '"proxies reverse"', "C++", "=>", '"']
)
def test_the_command_finds_the_same(moa: Moa, talks: dict[str, str], typed: str) -> None:
    assert names(talks, hits(moa, typed)) == dict(FOUND)[typed]


@pytest.mark.usefixtures("talks")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("request", "reply: They pass each [request] on."),
        ("proxy", "prompt: how do reverse [proxies] work?"),
        ("pars", "reply: It is [unparseable], foo-bar says."),
        ("foo-bar", "reply: It is unparseable, [foo-bar] says."),
        ("muller", "reply: Neben dem Haus von Frau [Müller], in der Weißen Straße."),
        ("resume", "prompt: [re\u0301sume\u0301] da\u0301tum"),
        ("天气", "prompt: 今天[天气]怎么样？"),
        ("学", "reply: 北京今天有雨，适合在家[学]习机器[学]习。"),
        ("タワー", "prompt: 東京[タワー]の高さは？"),
        ("วันนี้", "prompt: อากาศ[วันนี้]เป็นอย่างไร"),
        ("'\"stop running\"'", "reply: [Stop running] for a week; then run less."),
        ("1.2.3", "prompt: is [v1.2.3] out?"),
        ("=>", "reply: Call a.b() [=>] 'NEAR'"),
    ],
)
def test_hits_are_marked_whatever_way_they_were_found(moa: Moa, typed: str, shown: str) -> None:
    assert f"\n    {shown}" in moa.run("history", "search", typed).text


def test_a_snippet_is_taken_where_the_words_are(moa: Moa) -> None:
    filler = "nothing of interest here and there "
    keep(moa, ("hi", f"alpha {filler * 50}alpha then beta {filler * 50}"))
    (line,) = moa.run("history", "search", "alpha", "beta").text.splitlines()[1:]
    assert "…" in line
    assert "[alpha] then [beta]" in line
    assert len(line) < 200
    keep(moa, ("hi", f"{'很' * 500}天气{'好' * 500}"))
    (line,) = moa.run("history", "search", "天气").text.splitlines()[1:]
    assert "很[天气]好" in line
    assert len(line) < 200


def test_of_a_very_long_word_the_beginning_is_shown(moa: Moa) -> None:
    keep(moa, ("what is this key? " + "abcdef" * 10_000, "It is long."))
    (hit,) = hits(moa, "abcdef")
    assert len(hit["snippet"]) < 300
    [[begin, end]] = hit["hits"]
    assert hit["snippet"][begin:end].startswith("abcdefabcdef")


def test_a_snippet_does_nothing_to_the_terminal(moa: Moa) -> None:
    keep(moa, ("q", "a \x1b[31mred\x1b]0;gone\x07 \x02zebra\x03 \x9b2J\u202e\nnext"))
    for typed in ("zebra", "zebr", "ebr"):
        shown = moa.run("history", "search", typed).text
        assert "[zebra]" in shown
        assert not any(sign in shown for sign in "\x1b\x07\x9b\u202e\x02\x03")
    with moa.terminal("history", "search", "zebra") as terminal:
        terminal.wait()
        assert b"\x1b[1mzebra\x1b[0m" in terminal.raw
        assert b"gone" not in terminal.raw


def test_the_better_hit_comes_first(moa: Moa) -> None:
    inside = keep(moa, ("one", "a category"))
    begun = keep(moa, ("two", "some catering"))
    whole = keep(moa, ("three", "the cat sleeps"))
    keep(moa, ("four", "a dog"))
    bobcat = keep(moa, ("five", "a bobcat"))
    found = [hit["conversation"] for hit in hits(moa, "cat")]
    assert found == [whole, begun, inside, bobcat]
    titled = keep(moa, ("six", "seven"), title="Cats of the world")
    assert next(hit["conversation"] for hit in hits(moa, "cats")) == titled
    assert next(hit["conversation"] for hit in hits(moa, "bobcats")) == bobcat
    dashed = keep(moa, ("eight", "use --dry-run first"))
    keep(moa, ("nine", "dry run, dry run, dry run"))
    assert next(hit["conversation"] for hit in hits(moa, "--dry-run")) == dashed


def test_titles_are_found_and_share_words_with_turns(moa: Moa) -> None:
    named = keep(moa, ("first", "stripes"), ("second", "hooves"), title="Überblick: Zebras")
    keep(moa, ("what do zebras eat?", "grass and hooves"))
    (hit, other) = hits(moa, "zebra")
    assert (hit["conversation"], hit["turn"], hit["where"]) == (named, None, "title")
    assert hit["snippet"] == "Überblick: Zebras"
    assert hit["hits"] == [[11, 17]]
    # A title that the first prompt made is no hit beside that prompt.
    assert (other["where"], other["turn"]) == ("prompt", 1)
    decomposed = keep(moa, ("first", "x"), title="\u304b\u3099\u1112\u1161\u11ab")
    assert [hit["conversation"] for hit in hits(moa, "が")] == [decomposed]
    assert [hit["conversation"] for hit in hits(moa, "한")] == [decomposed]
    (hit,) = hits(moa, "uberblick", "hooves")
    assert (hit["conversation"], hit["turn"], hit["where"]) == (named, 2, "reply")
    assert hits(moa, "uberblick", "grass") == []
    shown = moa.run("history", "search", "überblick").text
    assert "title: [Überblick]: Zebras" in shown


def test_tags_are_found_with_the_title(moa: Moa) -> None:
    tagged = keep(moa, ("what do zebras wear?", "stripes"), ("and why?", "flies"))
    keep(moa, ("why rain?", "clouds"))
    with closing(Store.open(file_of(moa))) as store, store.connection(writing=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS tags (conversation_id TEXT NOT NULL, tag TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO tags VALUES (?, 'animals')", (tagged,))
    for typed in ("animals", "animal", "#animals", "zebras animals"):
        (hit,) = hits(moa, typed)
        assert (hit["conversation"], hit["where"]) == (tagged, "title")
        assert hit["snippet"] == "what do zebras wear? #animals"
    (hit,) = hits(moa, "animals why")
    assert (hit["turn"], hit["where"]) == (2, "prompt")


def test_whole_words_only_on_request(moa: Moa) -> None:
    whole = keep(moa, ("one", "a run"))
    keep(moa, ("two", "running"))
    keep(moa, ("three", "prune"), title="runs")
    assert len(hits(moa, "run")) == 4
    found = json.loads(moa.run("history", "search", "-w", "--json", "run").text)
    assert [hit["conversation"] for hit in found] == [whole]


def test_json_says_where_and_when(moa: Moa) -> None:
    before = time.time()
    identity = keep(moa, ("one", "two"), ("why?", "Because of the café roof."))
    (hit,) = hits(moa, "cafe")
    assert before <= hit.pop("when") <= time.time()
    assert hit == {
        "conversation": identity,
        "title": "one",
        "turn": 2,
        "where": "reply",
        "snippet": "Because of the café roof.",
        "hits": [[15, 19]],
        "profile": "lab",
        "model": None,
    }


def test_nothing_found_is_said(moa: Moa) -> None:
    ran = moa.run("history", "search", "giraffe")
    assert (ran.code, ran.text, ran.err) == (0, "", "moa: nothing found\n")
    ran = moa.run("history", "search", "--json", "giraffe")
    assert (ran.code, ran.text, ran.err) == (0, "[]\n", "moa: nothing found\n")


def test_limit_profile_and_age_narrow_the_hits(moa: Moa) -> None:
    old = keep(moa, ("one zebra", "x"))
    other = keep(moa, ("two zebras", "x"), title="zebra", profile="other")
    new = [keep(moa, (f"zebra {number}", "x")) for number in range(5)]
    with closing(Store.open(file_of(moa))) as store, store.connection(writing=True) as connection:
        ago = time.time() - 10 * 86400
        connection.execute("UPDATE turns SET started = ? WHERE conversation_id = ?", (ago, old))
        connection.execute("UPDATE conversations SET updated = ? WHERE id = ?", (ago, old))

    def found(*options: str) -> set[str]:
        ran = moa.run("history", "search", "--json", *options, "zebra")
        return {hit["conversation"] for hit in json.loads(ran.text)}

    assert found() == {old, other, *new}
    assert found("--since", "7d") == {other, *new}
    assert found("--since", "2w") == {old, other, *new}
    assert found("--profile", "other") == {other}
    assert found("--profile", "none") == set()
    assert len(json.loads(moa.run("history", "search", "--json", "-n", "3", "zebra").text)) == 3
    assert moa.run("history", "search", "--since", "soon", "zebra").code == 2


def test_proposals_are_looked_through_on_request(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="Perhaps a Müllabfuhr \x1b[2J\nin 東京都?"))
    assert moa.run("ask", "where?").code == 0
    for typed in ("mull", "müllabfuhr", "abfuhr", "東京", "perhaps 京"):
        assert hits(moa, typed) == []
        found = json.loads(moa.run("history", "search", "--proposals", "--json", typed).text)
        assert [(hit["where"], hit["model"], hit["turn"]) for hit in found] == [
            ("proposal", "lab:a", 1)
        ]
    shown = moa.run("history", "search", "--proposals", "abfuhr").text
    assert "proposal of lab:a: Perhaps a [Müllabfuhr]" in shown
    assert "\x1b" not in shown
    assert moa.run("history", "search", "--proposals", "giraffe").err == "moa: nothing found\n"


def test_the_index_keeps_up(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="an unparseable 天气"))
    assert moa.run("ask", "first zebra").code == 0
    assert [hit["where"] for hit in hits(moa, "parse")] == ["reply"]
    identity = hits(moa, "zebra")[0]["conversation"]
    exported = moa.folder / "all.json"
    assert moa.run("history", "export", "--all", "-o", str(exported)).code == 0
    assert moa.run("history", "delete", identity, "--yes").code == 0
    for typed in ("zebra", "parse", "天", "气"):
        assert hits(moa, typed) == []
    assert moa.run("history", "import", str(exported)).code == 0
    assert [hit["conversation"] for hit in hits(moa, "parse")] == [identity]
    assert [hit["conversation"] for hit in hits(moa, "天")] == [identity]
    ran = moa.run("chat", stdin=b"an okapi\n/undo\na tapir\n")
    assert ran.code == 0
    assert hits(moa, "okapi") == []
    assert [hit["turn"] for hit in hits(moa, "tapir")] == [1]


def test_many_words_and_odd_ones_are_no_error(moa: Moa) -> None:
    keep(moa, ("a zebra", "x" * 100_000 + " end"))
    many = " ".join(f"word{number}" for number in range(3000))
    enough = sys.maxsize
    odd = ("\x00", "a\x00b", "\udc80", "x" * 70_000, "-" * 500, "'", "''", "\\", "{", "%", "_", ";")
    with closing(Store.open(file_of(moa))) as store:
        assert store.search(many) == []
        assert len(store.search("zebra " * 3000)) == 1
        assert len(store.search("x" * 100_000)) == 1
        assert len(store.search("zebra", limit=enough)) == len(store.matching("z", limit=9)) == 1
        for typed in odd:
            store.search(typed, limit=enough)
            store.matching(typed)


OLD_INDEX = """
    DROP TRIGGER search_insert; DROP TRIGGER search_update; DROP TRIGGER search_replace;
    DROP TRIGGER search_delete; DROP TABLE search_index; DROP VIEW search_texts;
    DROP TABLE search_words; DROP TABLE search_doubted; DROP TABLE search_unwiped;
    CREATE VIRTUAL TABLE words USING fts5 (
        prompt, reply, content = 'turns', content_rowid = 'id', tokenize = 'unicode61'
    );
    CREATE TRIGGER words_insert AFTER INSERT ON turns BEGIN
        INSERT INTO words (rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
    END;
    CREATE TRIGGER words_update AFTER UPDATE OF prompt, reply ON turns BEGIN
        INSERT INTO words (words, rowid, prompt, reply)
            VALUES ('delete', old.id, old.prompt, old.reply);
        INSERT INTO words (rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
    END;
    CREATE TRIGGER words_delete AFTER DELETE ON turns BEGIN
        INSERT INTO words (words, rowid, prompt, reply)
            VALUES ('delete', old.id, old.prompt, old.reply);
    END;
    INSERT INTO words (words) VALUES ('rebuild');
    PRAGMA user_version = 3;
"""


def test_what_an_older_version_kept_is_found(moa: Moa, talks: dict[str, str]) -> None:
    with closing(sqlite3.connect(file_of(moa))) as connection:
        connection.executescript(OLD_INDEX)
    for typed, expected in (("proxy", "proxies"), ("天", "chinese"), ("pars", "unparseable")):
        assert names(talks, hits(moa, typed)) == [expected]
    with closing(sqlite3.connect(file_of(moa))) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert not any(name.startswith("words") for (name,) in tables)
        # Another program can read the file, its index included.
        query = "SELECT count(*) FROM search_index WHERE search_index MATCH 'proxies'"
        assert connection.execute(query).fetchone() == (1,)


def test_after_deleting_no_part_of_a_word_is_in_the_file(moa: Moa) -> None:
    keep(moa, *((f"keep {number}", f"word{number} 天气 giraffe") for number in range(30)))
    gone = keep(moa, ("forget", "unXYLOPHONEable 犬猫鳥 ÄÖÜxylophone"), title="okapi")
    keep(moa, *((f"more {number}", "giraffe") for number in range(30)))
    with closing(Store.open(file_of(moa))) as store:
        store.delete([gone])
        kept = [path for path in file_of(moa).parent.rglob("*") if path.is_file()]
        files = [path.read_bytes().lower() for path in kept]
        assert files
        for word in ("xylop", "okapi", "犬", "猫", "鳥"):
            assert not any(word.encode() in content for content in files), word
        assert store.search("xylophone") == store.search("犬") == store.search("ylop") == []
        assert len(store.search("giraffe", limit=100)) == 60
        assert len(store.search("天", limit=100)) == 30


def test_a_proposal_that_a_turn_shares_with_its_title(moa: Moa) -> None:
    with closing(Store.open(file_of(moa))) as store:
        identity = store.begin_conversation("hi", "lab")
        number = store.begin_turn(identity, "hi", "lab", "")
        store.add_proposal(number, Proposal(1, 0, "a", "lab:a", "proxies everywhere"))
        store.end_turn(number, Turn("hi", "ho", "finished", "lab"))
        (hit,) = store.search("proxy", proposals=True)
    assert (hit.where, hit.snippet) == ("proposal", "\x02proxies\x03 everywhere")
