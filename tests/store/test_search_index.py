"""The search index forgets what was deleted, step by step, while others write."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.store.search import wipe_step
from moa_cli.store.store import Store

WORDS = " ".join(f"word{number}" for number in range(300))


def talk(store: Store, prompt: str, reply: str) -> str:
    identity = store.begin_conversation("title", "lab")
    number = store.begin_turn(identity, prompt, "lab", "")
    store.end_turn(number, Turn(prompt, reply, "finished", "lab"))
    return identity


@pytest.mark.parametrize("pages", [1, 500])
@pytest.mark.parametrize("others", [0, 1, 40])
def test_after_the_last_step_no_page_holds_the_words(
    tmp_path: Path, others: int, pages: int
) -> None:
    file = tmp_path / "conversations.db"
    with closing(Store.open(file)) as store:
        for number in range(others):
            talk(store, f"{WORDS} before{number}", "giraffe 天气")
        gone = [talk(store, f"{WORDS} unxylophoneable{n}", "an okapi 犬猫鳥") for n in range(3)]
        for number in range(others):
            talk(store, f"{WORDS} after{number}", "giraffe 天气")
        with store.connection(writing=True) as connection:
            connection.execute("DELETE FROM conversations WHERE id = ?", (gone[0],))
        wipe_step(connection, pages)
        with store.connection(writing=True):
            for identity in gone[1:]:
                connection.execute("DELETE FROM conversations WHERE id = ?", (identity,))
        steps = 0
        while wipe_step(connection, pages):
            steps += 1
            if steps % 5 == 0 and steps < 50:
                talk(store, f"meanwhile{steps}", "giraffe 天气")
        assert steps > 1
        assert not wipe_step(connection, pages)
        connection.execute("INSERT INTO search_index (search_index) VALUES ('integrity-check')")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        files = [part for part in tmp_path.rglob("*") if part.is_file()]
        content = b"".join(part.read_bytes() for part in files).lower()
        for word in ("xyloph", "phoneable", "okapi", "kapi", "犬", "猫", "鳥"):
            assert word.encode() not in content, word
        for typed in ("xylophone", "okapi", "犬", "猫鳥", "ylop"):
            assert store.search(typed) == [], typed
        assert len(store.search("efore3")) == (11 if others == 40 else 0)
        assert len(store.search("天气", limit=1000)) == 2 * others + steps_with_talks(steps)


def steps_with_talks(steps: int) -> int:
    """How many conversations were had meanwhile."""
    return min(steps, 49) // 5
