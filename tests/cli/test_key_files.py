"""Keys from `.env` files: the user's own comes before that of a working directory, which may be
somebody else's, and where the latter is used it is said, once, on standard error."""

from __future__ import annotations

import pytest

from tests.support.command import KEY, Moa
from tests.support.upstream import Upstream


@pytest.fixture
def moa(moa: Moa) -> Moa:
    """The command, with no key in the environment."""
    del moa.environment["LAB_KEY"]
    return moa


def sent(upstream: Upstream) -> set[str]:
    """The keys that the endpoint was sent."""
    found = {request.headers["authorization"] for request in upstream.chats()}
    upstream.requests.clear()
    return {value.removeprefix("Bearer ") for value in found}


def test_the_working_directory_s_key_is_used_where_there_is_no_other_and_that_is_said(
    moa: Moa, upstream: Upstream
) -> None:
    here = moa.folder / ".env"
    here.write_text("LAB_KEY=foreign\n")
    notice = f"moa: the key of lab comes from the working directory: {here}\n"
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.err.count(notice), ran.err.count("foreign")) == (0, 1, 0)
    assert sent(upstream) == {"foreign"}
    quiet = moa.run("ask", "hi", "-q")
    assert (quiet.code, quiet.err) == (0, "")
    for command in (("chat",), ("batch", "-", "-"), ("models", "lab")):
        ran = moa.run(*command, stdin=b'{"prompt": "hi"}')
        assert (ran.code, ran.err.count(notice)) == (0, 1), command


def test_the_user_s_own_key_comes_first_and_a_second_one_is_told_of(
    moa: Moa, upstream: Upstream
) -> None:
    (moa.folder / ".env").write_text("LAB_KEY=foreign\n")
    (moa.config / ".env").write_text("LAB_KEY=own\n")
    ran = moa.run("ask", "hi")
    assert sent(upstream) == {"own"}
    assert f"moa: the key of lab comes from {moa.config / '.env'}; the working" in ran.err
    assert "another LAB_KEY, which is ignored" in ran.err
    (moa.folder / ".env").write_text("LAB_KEY=own\n")
    assert "the key of lab" not in moa.run("ask", "hi").err
    ran = moa.run("ask", "hi", env={"LAB_KEY": KEY})
    assert sent(upstream) == {"own", KEY}
    assert "the key of lab" not in ran.err
