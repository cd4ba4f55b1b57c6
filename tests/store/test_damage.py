"""A damaged store: nothing that is in it is written over, and most of it comes back."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from moa_cli.core.conversation import Usage
from moa_cli.core.errors import StoreError
from moa_cli.core.files.lock import try_lock
from moa_cli.core.paths import refuse_database
from moa_cli.store.comparisons import ComparedTexts, Comparison, Contender
from moa_cli.store.database import damaged_files, put_aside
from moa_cli.store.recovery import back_up, check, recover
from moa_cli.store.schema import store_errors
from moa_cli.store.store import Store
from tests.cli.history.test_search import OLD_INDEX
from tests.support.command import Moa
from tests.support.kept import fill, keep, open_store, pay


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the store is."""
    monkeypatch.setenv("MOA_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "conversations.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    """A store of 40 conversations of five turns, each with three proposals."""
    opened = open_store(file)
    fill(opened, 40)
    yield opened
    opened.close()


def said(store: Store) -> set[str]:
    """All replies in the store."""
    return {
        str(turn.reply)
        for summary in store.conversations(limit=1000)
        for turn in store.load(summary.id).turns
    }


def fill_only_the_log(file: Path) -> None:
    """Three conversations of a process that was killed before its log went into the file."""
    code = (
        "import os, sys; from pathlib import Path; from moa_cli.store.store import Store;"
        "from tests.support.kept import fill; store = Store.open(Path(sys.argv[1]));"
        "store._connection.execute('PRAGMA wal_autocheckpoint = 0'); fill(store, 3); os._exit(0)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, cwd=root)


def damage(file: Path, pages: int, seed: int) -> None:
    """Overwrite some pages with noise, as a failing disk does."""
    size = 8192
    places = random.Random(seed).sample(range(1, file.stat().st_size // size), pages)
    with file.open("r+b") as opened:
        for place in places:
            opened.seek(place * size)
            opened.write(random.Random(place).randbytes(size))


def quiet(progress: object) -> None:
    del progress


@pytest.mark.parametrize("seed", range(5))
def test_most_turns_come_back_from_a_file_with_damaged_pages(
    store: Store, file: Path, seed: int
) -> None:
    before = said(store)
    store.close()
    damage(file, 5, seed)
    original = file.read_bytes()
    aside = put_aside(file)
    assert aside.read_bytes() == original
    new = open_store(file)
    done = recover(new, aside, quiet)
    found = said(new)
    assert found <= before
    # A page of 8192 bytes holds five such turns at most.
    assert len(found) >= len(before) - 5 * 6
    assert len(done.added.new) == 40 or done.progress.skipped
    assert check(new).sound
    assert aside.read_bytes() == original
    again = recover(new, aside, quiet)
    assert (again.added.new, again.added.renamed, said(new)) == ([], [], found)
    new.close()


def test_all_of_it_comes_back_where_only_the_head_of_the_file_is_gone(
    store: Store, file: Path
) -> None:
    before = said(store)
    store.close()
    with file.open("r+b") as opened:
        opened.write(b"\0" * 4096)
    new = open_store(file)
    assert new.damaged is not None
    assert new.conversations() == []
    done = recover(new, new.damaged, quiet)
    assert (len(done.added.new), done.added.turns) == (40, 200)
    assert said(new) == before
    first = new.conversations(limit=1)[0]
    assert [len(layer) for layer in new.load(first.id).turns[0].proposals] == [3]
    new.close()


def test_what_stood_only_in_the_log_comes_back(file: Path) -> None:
    fill_only_the_log(file)
    aside = put_aside(file)
    store = open_store(file)
    assert recover(store, aside, quiet).added.turns == 15
    store.close()


def test_what_stood_only_in_the_log_comes_back_through_a_link(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    file.parent.mkdir()
    file.symlink_to(place / "real.db")
    fill_only_the_log(file)
    with pytest.raises(OSError, match="moa keeps its conversations in it"):
        refuse_database(place / "real.db-wal")
    aside = put_aside(file)
    assert aside.is_symlink()
    store = open_store(file)
    assert recover(store, aside, quiet).added.turns == 15
    store.close()


def test_damage_to_the_list_of_what_is_to_be_wiped_keeps_nobody_from_the_history(
    moa: Moa, store: Store, file: Path
) -> None:
    before = said(store)
    store.close()
    with closing(sqlite3.connect(file)) as connection:
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'doomed'")
    with file.open("r+b") as opened:
        opened.seek((page - 1) * 8192)
        opened.write(bytes(8192))
    assert len(moa.run("history", "list", "-n", "100").text.splitlines()) == 40
    assert moa.run("ask", "-c", "hi").code == 0
    assert moa.run("history", "check").code == 1
    ran = moa.run("history", "recover")
    assert (ran.code, "recovered 40 conversations" in ran.err) == (0, True)
    with closing(Store.open(file)) as new:
        assert said(new) > before
        assert check(new).sound


def test_older_damaged_files_are_told_of(moa: Moa, store: Store, file: Path) -> None:
    store.close()
    first = put_aside(file)
    assert moa.run("history", "list").text == ""
    assert "older damaged" not in moa.run("history", "recover").err
    assert moa.run("history", "delete", "--all", "--yes").code == 0
    second = put_aside(file)
    ran = moa.run("history", "recover")
    assert f"{second}: recovered 0 conversations, 0 turns\n" in ran.err
    assert f"moa: 1 older damaged file beside it: {first}; `moa history recover FILE`" in ran.err
    assert f"put aside as damaged: {first}\n" in moa.run("history", "check").text
    assert "recovered 40 conversations" in moa.run("history", "recover", str(first)).err


def test_what_killed_copies_left_is_wiped(moa: Moa, tmp_path: Path, store: Store) -> None:
    store.close()
    copy, data = tmp_path / "copy.db", tmp_path / "data"
    assert moa.run("history", "backup", str(copy)).code == 0

    def leave(folder: Path) -> Path:
        folder.mkdir()
        (folder / "rows.db").write_text("planted")
        # What is younger may be about to be locked by a process that lives.
        os.utime(folder, (1e9, 1e9))
        return folder

    left = [leave(data / ".moa-recover-aaaaaaaa"), leave(tmp_path / ".moa-backup-aaaaaaaa")]
    assert moa.run("history", "backup", "--force", str(copy)).code == 0
    assert [folder.exists() for folder in left] == [True, False]
    assert moa.run("history", "recover", str(copy)).code == 0
    assert not left[0].exists()
    left, busy = [leave(left[0])], leave(data / ".moa-recover-bbbbbbbb")
    handle = os.open(busy, os.O_RDONLY)
    try_lock(handle)
    assert moa.run("history", "delete", "--all", "--yes").code == 0
    os.close(handle)
    assert not left[0].exists()
    assert (busy / "rows.db").read_text() == "planted"


def test_blind_choices_come_back_once(store: Store, file: Path) -> None:
    pair = (
        Contender("mixture", "lab", "digest", Usage(1, 1, calls=1), 1.5),
        Contender("single:lab:a", "lab", "digest", Usage(1, 1, calls=1), 2.0),
    )
    choices = [Comparison(1000.0 + number, pair, winner) for number, winner in enumerate((0, None))]
    # Two arms gave the same answer; the user wrote a note, and allowed words to be kept.
    texts = ComparedTexts("why?", ("so", "so "), (("user", "first"),))
    choices.append(Comparison(1002.0, pair, 0, (0, 0), note="short", texts=texts))
    for choice in choices:
        store.comparisons.add(choice)
    store.close()
    aside = put_aside(file)
    new = open_store(file)
    for _ in range(2):
        recover(new, aside, quiet)
        assert new.comparisons.since(texts=True) == choices
    new.close()


def test_a_kill_between_the_log_and_the_file_parts_them_for_no_recovery(file: Path) -> None:
    fill_only_the_log(file)
    file.with_name(f"{file.name}-wal").rename(file.with_name(f"{file.name}.damaged-1000-wal"))
    file.write_bytes(b"no database at all" * 1000)
    store = open_store(file)
    assert store.damaged == file.with_name(f"{file.name}.damaged-1000")
    assert recover(store, store.damaged, quiet).added.turns == 15
    store.close()


def test_spending_before_the_damage_and_after_it_is_added_up_once(store: Store, file: Path) -> None:
    store.close()
    aside = put_aside(file)
    new = open_store(file)
    pay(new, Usage(1, 1, calls=1, cost=1.0))
    for _ in range(2):
        recover(new, aside, quiet)
    [spent] = new.spending.by_month()
    assert (spent.usage.calls, round(spent.usage.cost, 6)) == (201, 51.0)
    new.close()


def test_deleted_conversations_stay_deleted(store: Store, file: Path) -> None:
    gone = store.conversations(limit=1)[0].id
    words = {str(turn.reply) for turn in store.load(gone).turns}
    # Deleted, and killed before anything could be wiped.
    store.delete([gone], seconds=-1.0)
    store.close()
    aside = put_aside(file)
    new = open_store(file)
    assert len(recover(new, aside, quiet).added.new) == 39
    assert not words & said(new)
    new.close()


PROCESS = """
import sys
from pathlib import Path
from moa_cli.store.calls import SpendingEntry
from moa_cli.store.store import Store
store = Store.open(Path(sys.argv[1]))
identity = store.begin_conversation(f"from {sys.argv[2]}", "lab")
store.begin_turn(identity, f"question of {sys.argv[2]}", "lab", "")
store.close()
"""


def test_processes_that_meet_the_damage_at_once_lose_nothing(file: Path) -> None:
    file.parent.mkdir()
    original = b"this is no database" * 5000
    for round_ in range(3):
        file.write_bytes(original)
        before = set(damaged_files(file))
        running = [
            subprocess.Popen([sys.executable, "-c", PROCESS, str(file), f"{round_}.{number}"])
            for number in range(6)
        ]
        assert [process.wait(60) for process in running] == [0] * 6
        [aside] = set(damaged_files(file)) - before
        assert aside.read_bytes() == original
        store = open_store(file)
        titles = {summary.title for summary in store.conversations()}
        store.close()
        assert titles == {f"from {round_}.{number}" for number in range(6)}
        for part in file.parent.glob("conversations.db*"):
            if "damaged" not in part.name and part.suffix != ".lock":
                part.unlink()


def test_a_store_whose_file_was_put_aside_goes_on_in_the_new_one(store: Store, file: Path) -> None:
    aside = put_aside(file)
    Store.open(file).close()
    identity = store.begin_conversation("after", "lab")
    store.begin_turn(identity, "after the change", "lab", "")
    store.spending.write(turns=1)
    other = open_store(file)
    assert [summary.title for summary in other.conversations()] == ["after"]
    assert sum(other.spending.turns_by_month().values()) == 1
    other.close()
    assert aside.exists()


def test_spending_alone_goes_on_in_the_new_file(store: Store, file: Path) -> None:
    # As the server and the library write, which keep no words.
    put_aside(file)
    other = open_store(file)
    assert store.spending.reserve("turn", 0.25, 1.0).total == 0
    pay(store, Usage(1, 1, calls=1, cost=0.5))
    [spent] = other.spending.by_month()
    assert (spent.usage.calls, spent.usage.cost) == (1, 0.5)
    assert other.spending.reserve("other", 0.25, 1.0).total == 0.75
    store.spending.release("turn")
    assert other.spending.reserve("third", 0.25, 1.0).total == 0.75
    other.close()


def test_one_damaged_row_leaves_all_others_readable(moa: Moa) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    store = open_store(data)
    fill(store, 3)
    store.close()
    connection = sqlite3.connect(data)
    connection.execute("UPDATE turns SET rest = '{\"usage\": 3' WHERE id = 1")
    connection.execute('UPDATE turns SET rest = \'{"usage": {"cost": "much"}}\' WHERE id = 7')
    connection.execute("UPDATE proposals SET proposal = x'00' WHERE turn_id = 2 AND place = 1")
    connection.execute("UPDATE proposals SET proposal = '[]' WHERE turn_id = 12 AND place = 1")
    connection.commit()
    connection.close()
    for arguments in (
        ["history", "list"],
        ["history", "show"],
        ["history", "export", "--all", "--format", "json"],
        ["history", "export", "--all"],
        ["ask", "-c", "and now?"],
        ["history", "search", "question"],
    ):
        ran = moa.run(*arguments)
        assert ran.code == 0, (arguments, ran.err)
        assert "Traceback" not in ran.err
    ran = moa.run("history", "list")
    assert len(ran.text.splitlines()) == 3
    assert "damaged value" in ran.err
    ran = moa.run("history", "check")
    assert ran.code == 1
    assert "of the history cannot be read" in ran.err


@pytest.fixture
def flipped(moa: Moa) -> tuple[Path, dict[str, str]]:
    """The history of three conversations, and their ids by their words. One byte of the second one
    is damaged wherever it stands, so that it is not UTF-8."""
    data = moa.state.parent / "data" / "conversations.db"
    words = ("apples", "melons", "plums")
    kept = {word: keep(moa, (f"what are {word}?", "fruit")) for word in words}
    for beside in data.parent.glob(f"{data.name}-*"):
        beside.unlink()
    data.write_bytes(data.read_bytes().replace(b"are melons", b"are mel\xffns"))
    return data, kept


def test_one_damaged_byte_hides_nothing_and_can_be_deleted(
    moa: Moa, flipped: tuple[Path, dict[str, str]]
) -> None:
    data, kept = flipped
    for arguments in (
        ["history", "list", "--json"],
        ["history", "list"],
        ["history", "search", "what"],
        ["history", "show", kept["melons"]],
        ["history", "export", "--all"],
    ):
        ran = moa.run(*arguments)
        assert ran.code == 0, (arguments, ran.err)
        assert "mel\ufffdns" in ran.text
    assert "damaged value" in moa.run("history", "list").err
    assert moa.run("history", "check").code == 1
    ran = moa.run("history", "delete", kept["melons"], "-y")
    assert (ran.code, ran.err) == (0, "moa: deleted 1 conversation\n")
    assert b"mel\xffns" not in data.read_bytes()
    assert moa.run("history", "check").code == 0
    assert moa.run("history", "delete", "--search", "plums", "-y").code == 0
    assert [kept["apples"] in line for line in moa.run("history", "list").text.splitlines()] == [1]


def test_one_damaged_byte_of_an_older_version_is_no_obstacle(
    moa: Moa, flipped: tuple[Path, dict[str, str]]
) -> None:
    data, kept = flipped
    data.write_bytes(data.read_bytes().replace(b"mel\xffns", b"melons"))
    with closing(sqlite3.connect(data)) as connection:
        connection.executescript(OLD_INDEX)
    data.write_bytes(data.read_bytes().replace(b"are melons", b"are mel\xffns"))
    assert len(moa.run("history", "list").text.splitlines()) == 3
    assert kept["melons"] in moa.run("history", "search", "mel").text
    assert kept["plums"] in moa.run("history", "search", "plum").text
    assert moa.run("history", "delete", "--all", "-y").code == 0


def test_a_conversation_with_one_damaged_byte_comes_back(
    moa: Moa, flipped: tuple[Path, dict[str, str]]
) -> None:
    data, kept = flipped
    copy = data.rename(moa.folder / "copy.db")
    assert "recovered 3 conversations, 3 turns" in moa.run("history", "recover", str(copy)).err
    assert "mel\ufffdns" in moa.run("history", "show", kept["melons"]).text


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        ("conversations", "title = x'ff00'"),
        ("conversations", "profile = 5"),
        ("conversations", "created = 'soon', updated = 'soon'"),
        ("conversations", "updated = 9e999"),
        ("conversations", "updated = -1e300"),
        ("turns", "started = 'soon', settings = x'ff', profile = x'ff'"),
        ("turns", "prompt = x'ff', reply = x'ff', status = x'ff'"),
        ("tags", "tag = x'ff'"),
        ("spending", "model = CAST(model AS BLOB)"),
        ("booked", "lease = x'ff'"),
    ],
)
def test_values_of_another_kind_hide_nothing(moa: Moa, table: str, damage: str) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    kept = [keep(moa, ("what are apples?", "fruit")), keep(moa, ("what are plums?", "fruit"))]
    assert moa.run("history", "tag", kept[0], "food").code == 0
    assert moa.run("ask", "what are melons?").code == 0
    store = open_store(data)
    with store.connection(writing=True) as connection:
        connection.execute("DROP TRIGGER search_update")
        connection.execute("DROP TRIGGER search_replace")
        one = " WHERE rowid = 1" if table in ("conversations", "turns") else ""
        connection.execute(f"UPDATE {table} SET {damage}{one}")
    store.close()
    for arguments in (
        ["history", "list"],
        ["history", "list", "--json"],
        ["history", "search", "fruit"],
        ["history", "search", "plums"],
        ["history", "show", kept[0]],
        ["history", "export", "--all"],
        ["history", "export", "--all", "--format", "json"],
        ["history", "stats"],
        ["ask", "what else?"],
    ):
        ran = moa.run(*arguments)
        assert ran.code == 0, (arguments, ran.err)
    assert len(moa.run("history", "list").text.splitlines()) == 4
    assert moa.run("history", "delete", *kept, "-y").code == 0
    assert len(moa.run("history", "list").text.splitlines()) == 2


def test_a_damaged_search_index_is_told_and_can_be_mended(moa: Moa) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    keep(moa, ("what are apples?", "fruit"))
    with closing(sqlite3.connect(data)) as connection:
        # Since then, SQLite opens the index neither to read nor to write.
        connection.execute("UPDATE search_index_config SET v = 0")
        connection.commit()
    assert "not saved yet" in moa.run("ask", "what are plums?").err
    searched = moa.run("history", "search", "fruit")
    assert (searched.code, "moa history recover" in searched.err) == (1, True)
    checked = moa.run("history", "check")
    assert (checked.code, "the search index is damaged" in checked.err) == (1, True)
    assert "recovered 1 conversation, 1 turn" in moa.run("history", "recover").err
    assert moa.run("history", "check").code == 0
    assert len(moa.run("history", "search", "what").text.splitlines()) == 4


def test_a_copy_of_a_conversation_with_a_damaged_text_is_refused(
    flipped: tuple[Path, dict[str, str]],
) -> None:
    data, kept = flipped
    with closing(Store.open(data)) as store:
        with pytest.raises(StoreError) as caught:
            store.fork(kept["melons"])
        assert "moa history recover" in (caught.value.hint or "")
        assert store.load(store.fork(kept["plums"])).turns[0].user == "what are plums?"


def test_the_commands_tell_what_they_find_and_bring_back(moa: Moa) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    store = open_store(data)
    fill(store, 20)
    store.close()
    ran = moa.run("history", "check")
    assert ran.code == 0
    assert ran.text.startswith("sound: 20 conversations, 100 turns, ")
    assert moa.run("history", "recover").err == (
        "moa: nothing to recover: the history is sound, and no damaged file was put aside\n"
    )
    damage(data, 6, 5)
    ran = moa.run("history", "check")
    assert ran.code == 1
    assert "the history is damaged" in ran.err
    ran = moa.run("history", "recover")
    assert ran.code == 0
    assert "was put aside" in ran.err
    assert "recovered" in ran.err
    assert moa.run("history", "check").code == 0
    assert len(moa.run("history", "list", "-n", "100").text.splitlines()) >= 15


def test_a_history_that_was_put_aside_is_not_sound_and_replaces_no_copy(
    moa: Moa, tmp_path: Path, store: Store, file: Path
) -> None:
    store.close()
    copy = tmp_path / "copy.db"
    assert moa.run("history", "backup", str(copy)).code == 0
    whole = copy.read_bytes()
    for command in (("check",), ("backup", "--force", str(copy)), ("delete", "--all", "--yes")):
        file.write_bytes(b"x" * file.stat().st_size)
        ran = moa.run("history", *command)
        assert "was damaged and put aside" in ran.err
        if command[0] == "delete":
            assert "nothing to delete" in ran.err
            assert f"may still hold deleted text: {damaged_files(file)[0]}" in ran.err
        else:
            assert ran.code == 1
            assert ran.text == ""
            assert "moa: the history is damaged" in ran.err
    assert copy.read_bytes() == whole


def test_a_copy_is_whole_private_and_can_be_taken_in_again(
    moa: Moa, tmp_path: Path, store: Store, file: Path
) -> None:
    ran = moa.run("history", "backup", str(tmp_path / "copy.db"))
    assert ran.code == 0, ran.err
    copy = tmp_path / "copy.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("copy.db-*"))
    for name in ("-", "con", "aux.db"):
        assert moa.run("history", "backup", name).code == 2
        assert not (moa.folder / name).exists()
    ran = moa.run("history", "backup", str(copy))
    assert ran.code == 2
    assert "already exists" in ran.err
    assert moa.run("history", "backup", "--force", str(copy)).code == 0
    with pytest.raises(OSError, match="conversations"):
        back_up(store, file)
    chosen = [summary.id for summary in store.conversations(limit=7)]
    store.delete(chosen)
    done = recover(store, copy, quiet)
    assert (len(done.added.new), len(done.added.same), done.progress.skipped) == (7, 33, 0)
    [spent] = store.spending.by_month()
    assert spent.usage.calls == 200


def test_a_file_system_without_shared_memory_is_told() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMMAP
    with pytest.raises(StoreError, match="lacks shared memory; set MOA_DATA_DIR"), store_errors():
        raise error


def test_what_is_no_database_is_told(moa: Moa, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello\n" * 1000, "utf-8")
    ran = moa.run("history", "recover", str(tmp_path / "text.db"))
    assert "recovered 0 conversations" in ran.err
    ran = moa.run("history", "recover", str(tmp_path / "none.db"))
    assert ran.code == 1
    assert "none.db: cannot be read: No such file or directory" in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_can_be_read(store: Store, file: Path) -> None:
    store.close()
    file.parent.chmod(0o500)
    try:
        reader = Store.open_to_read(file)
        assert len(said(reader)) == 200
        with pytest.raises(StoreError):
            reader.rename(reader.conversations(limit=1)[0].id, "other")
        reader.close()
    finally:
        file.parent.chmod(0o700)
