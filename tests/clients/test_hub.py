"""Models from the hub: fetched by name, gone on with after a kill, checked by the hub's hash; and
several of them in one mixture, each loaded once, within a limit of memory."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moa_cli.clients.local.gguf import read_shape
from moa_cli.clients.local.weights import SMOLLM2, find_weights
from moa_cli.config.schema import Config
from tests.support.command import PATIENCE, Moa
from tests.support.hub import Hub, HubModel, hub

_NOWHERE = "http://127.0.0.1:9"


def gguf(name: str, size: int = 3_000_000) -> bytes:
    """A file that begins as a model does."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
    return header + (name.encode() * size)[:size]


@pytest.fixture
def moa(tmp_path: Path) -> Moa:
    return Moa(tmp_path, _NOWHERE)


def pull(moa: Moa, served: Hub, name: str, **environment: str) -> tuple[int, str, str]:
    ran = moa.run("models", "pull", name, env={"HF_ENDPOINT": served.url, **environment})
    return ran.code, ran.text.strip(), ran.err


def kept(moa: Moa) -> list[str]:
    """The names of what lies in the folder of models."""
    folder = moa.state.parent / "cache" / "models" / "hf"
    return sorted(path.name for path in folder.rglob("*"))


def test_a_model_is_fetched_checked_and_named(moa: Moa) -> None:
    content = gguf("tiny")
    with hub(
        **{"Tiny-GGUF": HubModel({"tiny-Q4_K_M.gguf": content, "README.md": b"text"})}
    ) as served:
        code, path, told = pull(moa, served, "hf:lab/Tiny-GGUF")
        assert code == 0, told
        assert Path(path).read_bytes() == content
        assert "Use it as local:tiny-Q4_K_M" in told
        assert pull(moa, served, "hf:lab/Tiny-GGUF/tiny-Q4_K_M.gguf")[0] == 0
    assert [size for _, size in served.sent] == [len(content)]
    listed = moa.run("models", "list", "local", "--json")
    assert "local:tiny-Q4_K_M" in [row["name"] for row in json.loads(listed.text)]


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5h://me:pw@localhost:9", "ALL_PROXY: the proxy socks5h://***@localhost:9 refuses"),
        ("ftp://localhost:9", "ALL_PROXY: proxies with ftp:// are not supported"),
        ("http://me:pw@127.0.0.1:9", "ALL_PROXY: the proxy http://***@127.0.0.1:9 refuses"),
    ],
    ids=["SOCKS", "no proxy", "dead"],
)
def test_a_proxy_that_does_not_lead_there_is_named(moa: Moa, proxy: str, said: str) -> None:
    env = {"HF_ENDPOINT": "https://hub.example", "ALL_PROXY": proxy}
    ran = moa.run("models", "pull", "hf:lab/Tiny-GGUF", env=env)
    assert (ran.code, ran.text) == (77, "")
    assert ran.err.count("\n") == 1
    assert said in ran.err
    assert "pw" not in ran.err


def test_a_download_that_was_killed_goes_on_where_it_was(moa: Moa) -> None:
    content = gguf("large", 40_000_000)
    with hub(**{"Big-GGUF": HubModel({"big-Q8_0.gguf": content})}) as served:
        served.stop_at = 24_000_000
        arguments = ("models", "pull", "hf:lab/Big-GGUF")
        with moa.start(*arguments, env={"HF_ENDPOINT": served.url}) as process:
            assert served.stopped.wait(PATIENCE)
            (part,) = _parts(moa)
            _until_grown(part)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        served.go_on.set()
        served.stop_at = None
        had = part.stat().st_size
        assert 0 < had <= 24_000_000
        code, path, told = pull(moa, served, "hf:lab/Big-GGUF")
        assert code == 0, told
        assert "are here" in told
    assert served.sent[-1] == (had, len(content) - had)
    assert Path(path).read_bytes() == content
    assert _parts(moa) == []


def _parts(moa: Moa) -> list[Path]:
    return list((moa.state.parent / "cache" / "models").rglob("*.part"))


def _until_grown(part: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not part.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_transfer_that_breaks_off_is_gone_on_with_in_the_same_run(moa: Moa) -> None:
    content = gguf("large", 30_000_000)
    with hub(**{"Big-GGUF": HubModel({"big-Q8_0.gguf": content})}) as served:
        served.stop_at = 24_000_000
        served.go_on.set()
        code, path, told = pull(moa, served, "hf:lab/Big-GGUF")
        assert code == 0, told
    assert Path(path).read_bytes() == content
    assert sum(size for _, size in served.sent) < len(content) + 24_000_000


@pytest.mark.parametrize("content", [gguf("x"), b"<html>not a model</html>"])
def test_a_wrong_hash_leaves_nothing_behind(moa: Moa, content: bytes) -> None:
    model = HubModel({"x-Q4_0.gguf": content}, lies={"x-Q4_0.gguf": "0" * 64})
    with hub(**{"X-GGUF": model}) as served:
        code, out, told = pull(moa, served, "hf:lab/X-GGUF")
    assert (code, out) == (77, "")
    assert "its hash is different" in told
    assert "nothing was kept" in told
    assert kept(moa) == []


def test_what_is_no_model_is_refused_though_its_hash_is_right(moa: Moa) -> None:
    with hub(**{"X-GGUF": HubModel({"x-Q4_0.gguf": b"MZ" + bytes(100)})}) as served:
        code, _, told = pull(moa, served, "hf:lab/X-GGUF")
    assert code == 77, told
    assert kept(moa) == []


def test_a_small_file_is_checked_by_git_s_hash(moa: Moa) -> None:
    content = gguf("small", 5000)
    model = HubModel({"s-F16.gguf": content}, small=("s-F16.gguf",))
    with hub(**{"S-GGUF": model}) as served:
        code, path, told = pull(moa, served, "hf:lab/S-GGUF")
    assert code == 0, told
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("hf:lab/Many-GGUF", "many-Q4_K_M.gguf"),
        ("hf:lab/Many-GGUF:q8_0", "many-Q8_0.gguf"),
        ("hf:lab/Many-GGUF:Q4_K", "other-Q4_K.gguf"),
        ("hf:lab/Many-GGUF/sub/deep-F16.gguf", "deep-F16.gguf"),
        ("hf:lab/Many-GGUF@main:Q8_0", "many-Q8_0.gguf"),
    ],
)
def test_one_of_several_files_is_chosen(moa: Moa, name: str, taken: str) -> None:
    names = ("many-Q8_0.gguf", "many-Q4_K_M.gguf", "other-Q4_K.gguf", "sub/deep-F16.gguf")
    strange = (
        "../evil-Q4_K_M.gguf",
        "/etc/evil-Q4_K_M.gguf",
        "a\x1b[2Jb-Q4_K_M.gguf",
        "mmproj.gguf",
    )
    files = {file: gguf(file, 2000) for file in (*strange, *names)}
    with hub(**{"Many-GGUF": HubModel(files)}) as served:
        code, path, told = pull(moa, served, name)
    assert code == 0, told
    assert Path(path).name == taken
    assert "\x1b" not in told


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("UPPER.GGUF", "UPPER"),
        ("smollm2.gguf", "lab/X-GGUF/smollm2"),
        ("x-00001-of-00000.gguf", "x-00001-of-00000"),
        ("x-00001-of-00001.GGUF", "x-00001-of-00001"),
        ("sub/y-Q8_0.gguf", "y-Q8_0"),
    ],
)
def test_a_pulled_model_is_listed_and_found_by_the_name_that_is_told(
    moa: Moa, file: str, name: str
) -> None:
    with hub(**{"X-GGUF": HubModel({file: gguf("x")})}) as served:
        code, path, told = pull(moa, served, "hf:lab/X-GGUF")
    assert code == 0, told
    assert told.endswith(f"Use it as local:{name}\n")
    # Too little for any: each is found, and none is loaded.
    moa.configure(local={"memory": 0.1}, providers=moa.settings()["providers"])
    listed = json.loads(moa.run("models", "list", "local", "--json").text)
    assert f"local:{name}" in [row["name"] for row in listed]
    for called in (name, "lab/X-GGUF", *(["lab/X-GGUF:Q8_0"] if "Q8_0" in file else [])):
        ran = moa.run("ask", "-r", "0", "-a", f"local:{called}", "hello")
        assert f"{Path(path).name} needs about" in ran.err


def test_a_model_that_lacks_a_part_is_not_offered(moa: Moa) -> None:
    parts = {f"x-0000{number}-of-00002.gguf": gguf("x") for number in (1, 2)}
    with hub(**{"X-GGUF": HubModel(parts)}) as served:
        code, path, told = pull(moa, served, "hf:lab/X-GGUF/x-00001-of-00002.gguf")
    assert code == 0, told
    Path(path).with_name("x-00002-of-00002.gguf").unlink()
    listed = json.loads(moa.run("models", "list", "local", "--json").text)
    assert "local:x-00001-of-00002" not in [row["name"] for row in listed]


def test_a_model_in_parts_is_fetched_whole(moa: Moa) -> None:
    names = [f"m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    with hub(**{"Parts-GGUF": HubModel({name: gguf(name, 2000) for name in names})}) as served:
        code, path, told = pull(moa, served, "hf:lab/Parts-GGUF")
        assert code == 0, told
        assert Path(path).name == names[0]
        assert kept(moa) == ["Parts-GGUF", "lab", *names]
        del served.models["lab/Parts-GGUF"].files[names[1]]
        shutil.rmtree(Path(path).parent)
        code, _, told = pull(moa, served, "hf:lab/Parts-GGUF")
    assert code == 77
    assert f"lacks a part of the model: {names[1]}" in told


def _with(**fields: object) -> HubModel:
    return HubModel({"m-Q4_K_M.gguf": gguf("m", 2000)}, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("hf:lab/None-GGUF", 77, "there is no repository lab/None-GGUF"),
        ("hf:lab/Gated-GGUF", 77, "accept them at"),
        ("hf:lab/Down-GGUF", 77, "answered 500"),
        ("hf:lab/Text", 2, "holds no GGUF file"),
        ("hf:lab/One-GGUF/other.gguf", 2, "it has: m-Q4_K_M.gguf"),
        ("hf:lab/One-GGUF:Q2_K", 2, "no file of the quantization Q2_K"),
        ("hf:lab", 2, "does not name a GGUF model"),
        ("hf:../../x/y.gguf", 2, "does not name a GGUF model"),
        ("hf:lab/One-GGUF/../../x.gguf", 2, "does not name a GGUF model"),
        ("hf:lab/One-GGUF/m.safetensors", 2, "does not name a GGUF model"),
        ("lab/One-GGUF", 2, "hf:OWNER/REPO"),
    ],
)
def test_what_cannot_be_fetched_is_told_in_one_line(
    moa: Moa, name: str, code: int, said: str
) -> None:
    models = {
        "Gated-GGUF": _with(refusal=(403, "GatedRepo")),
        "Down-GGUF": _with(refusal=(500, "")),
        "Text": HubModel({"model.safetensors": b"x"}),
        "One-GGUF": _with(),
    }
    with hub(**models) as served:
        found, out, told = pull(moa, served, name)
    assert (found, out) == (code, ""), told
    assert said in told
    assert "Traceback" not in told
    assert kept(moa) == []


@pytest.mark.parametrize(
    "told",
    [
        b"<html>log in to this network</html>",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"id": "lab/X-GGUF", "siblings": [{}]}',
        b'{"id": "lab/X-GGUF", "siblings": [{"rfilename": 5}]}',
        b'{"id": "lab/X-GGUF", "siblings": [{"rfilename": "x.gguf", "size": -1, "blobId": null}]}',
        b'{"id": "lab/X-GGUF", "siblings": [{"rfilename": "x.gguf", "size": 1, "blobId": "../x"}]}',
    ],
)
def test_what_does_not_answer_as_a_hub_is_told_in_one_line(moa: Moa, told: bytes) -> None:
    with hub(**{"X-GGUF": HubModel({}, told=told)}) as served:
        code, out, err = pull(moa, served, "hf:lab/X-GGUF")
    assert (code, out, err.count("\n")) == (77, "", 1)
    assert "does not answer like the Hugging Face hub" in err
    assert kept(moa) == []


def test_a_token_that_cannot_be_sent_is_not_repeated(moa: Moa) -> None:
    with hub() as served:
        code, out, err = pull(moa, served, "hf:lab/X-GGUF", HF_TOKEN="hf_sécret")
    assert (code, out, err.count("\n")) == (77, "", 1)
    assert "HF_TOKEN" in err
    assert "cret" not in err


@pytest.mark.parametrize("name", ["hf:lab/a--b", "hf:lab/x.git", "hf:lab/x."])
def test_a_name_that_the_hub_allows_nobody_is_refused(moa: Moa, name: str) -> None:
    with hub() as served:
        code, out, err = pull(moa, served, name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"`{name}` does not name a GGUF model" in err


def test_a_hub_that_is_not_there_is_named(moa: Moa) -> None:
    ran = moa.run("models", "pull", "hf:lab/X", env={"HF_ENDPOINT": _NOWHERE})
    assert ran.code == 77
    assert f"{_NOWHERE} could not be reached" in ran.err
    ran = moa.run("models", "pull", "hf:lab/X", env={"HF_HUB_OFFLINE": "1"})
    assert ran.code == 77
    assert "HF_HUB_OFFLINE" in ran.err


def test_the_token_goes_to_the_hub_and_to_no_output(moa: Moa) -> None:
    with hub(**{"One-GGUF": _with()}) as served:
        code, out, told = pull(moa, served, "hf:lab/One-GGUF", HF_TOKEN="hf_secret0123456789")
    assert code == 0, told
    assert set(served.tokens) == {"Bearer hf_secret0123456789"}
    assert "hf_secret" not in out + told


def test_a_token_that_the_hub_repeats_is_not_shown(moa: Moa) -> None:
    refusing = HubModel({}, refusal=(503, "Busy"))
    with hub(**{"One-GGUF": refusing}) as served:
        _, out, told = pull(moa, served, "hf:lab/One-GGUF", HF_TOKEN="hf_secret0123456789")
    assert "told by the hub Bearer [key]" in told
    assert "hf_secret" not in out + told


def own_models(moa: Moa, *names: str) -> None:
    """Put copies of the carried weights where pulled models lie."""
    source = find_weights(SMOLLM2, Config())
    for name in names:
        target = moa.state.parent / "cache" / "models" / "hf" / "lab" / name / f"{name}.gguf"
        target.parent.mkdir(parents=True)
        target.symlink_to(source)


def mixture(moa: Moa) -> None:
    models = ("local:first", "local:lab/Second", "local:FIRST")
    proposers = [{"name": f"p{i}", "model": name, "max_tokens": 4} for i, name in enumerate(models)]
    moa.profile("two", *proposers, aggregator={"model": "local:second", "max_tokens": 4})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_two_local_models_form_a_mixture_each_loaded_once(moa: Moa) -> None:
    own_models(moa, "first", "Second")
    mixture(moa)
    moa.configure(local={"context": 1024, "parallel": 2})
    with moa.start("ask", "-p", "two", "Say hello.", "--json") as process:
        most: set[int] = set()
        while process.poll() is None:
            most |= _servers(process.pid)
        out, told = process.communicate()
    assert process.returncode == 0, told.decode()
    answered = json.loads(out)
    assert len(most) == 2
    assert "second" in json.dumps(answered).lower()


def _servers(parent: int) -> set[int]:
    try:
        tasks = Path(f"/proc/{parent}/task").glob("*/children")
        found = {int(child) for task in tasks for child in task.read_text().split()}
        return {child for child in found if _serves(child)}
    except OSError:
        return set()


def _serves(process: int) -> bool:
    try:
        return b"local.server" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def test_models_beyond_the_memory_are_refused_before_they_are_loaded(moa: Moa) -> None:
    own_models(moa, "first", "Second")
    small = {"max_tokens": 4}
    aggregator = {"model": "local:second", **small}
    moa.profile("two", {"model": "local:first", **small}, aggregator=aggregator)
    moa.configure(local={"context": 1024, "parallel": 2, "memory": 0.5})
    ran = moa.run("ask", "-p", "two", "Say hello.")
    assert "the limit is 500 MB" in ran.err
    assert "of other models" in ran.err
    assert "local.memory" in ran.err


def test_a_name_that_several_models_have_is_not_guessed(moa: Moa) -> None:
    own_models(moa, "first")
    other = moa.state.parent / "cache" / "models" / "hf" / "else" / "first" / "first.gguf"
    other.parent.mkdir(parents=True)
    other.write_bytes(gguf("first", 100))
    ran = moa.run("ask", "-m", "local:first", "-a", "local:first", "hello")
    assert "may be any of: else/first/first, lab/first/first" in ran.err
    ran = moa.run("ask", "-m", "local:frist", "-a", "local:frist", "hello")
    assert "there is no model `frist`" in ran.err


def test_suggestions_fit_the_machine(moa: Moa) -> None:
    def named(memory: float) -> list[str]:
        moa.configure(local={"memory": memory})
        rows = json.loads(moa.run("models", "suggest", "--json").text)
        assert len(rows) == 3
        assert sum(row["gigabytes"] for row in rows) <= max(memory, 2)
        return [row["reference"] for row in rows]

    assert len({tuple(named(memory)) for memory in (1, 4, 12, 64)}) == 4
    ran = moa.run("models", "suggest")
    assert ran.text.count("  hf:") == 3


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _header(*entries: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(entries)) + b"".join(entries)


_ARCHITECTURE = _entry("general.architecture", 8, _text("x"))


@pytest.mark.parametrize(
    ("content", "context", "token_bytes"),
    [
        (
            _header(
                _ARCHITECTURE,
                _entry("x.block_count", 4, struct.pack("<I", 3)),
                _entry("general.tags", 9, struct.pack("<IQ", 8, 2) + _text("a") + _text("b")),
                _entry("x.context_length", 10, struct.pack("<Q", 777)),
                _entry("x.attention.head_count", 4, struct.pack("<I", 4)),
                _entry("x.embedding_length", 4, struct.pack("<I", 64)),
            ),
            777,
            3 * 4 * 32 * 2,
        ),
        (
            _header(
                _ARCHITECTURE,
                _entry("x.attention.head_count_kv", 9, struct.pack("<IQ3I", 4, 3, 1, 2, 1)),
                _entry("x.attention.key_length", 4, struct.pack("<I", 8)),
                _entry("x.attention.value_length", 4, struct.pack("<I", 8)),
            ),
            None,
            4 * 16 * 2,
        ),
    ],
)
def test_the_shape_of_a_model_is_read_from_its_header(
    tmp_path: Path, content: bytes, context: int | None, token_bytes: int
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    shape = read_shape(path)
    assert shape is not None
    assert (shape.context, shape.token_bytes) == (context, token_bytes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:30],
        lambda whole: b"GGML" + whole[4:],
        lambda whole: whole[:24] + b"\xff" * 8 + whole[32:],
        lambda whole: b"",
    ],
)
def test_a_damaged_header_tells_nothing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(damage(_header(_ARCHITECTURE)))
    assert read_shape(path) is None
