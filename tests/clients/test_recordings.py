"""What real providers answered, byte for byte, over each transport and in pieces of any size."""

from __future__ import annotations

import asyncio

import pytest

from moa_cli.clients.aiohttp_transport import AiohttpTransport
from moa_cli.clients.transport import OpenTransport
from tests.support.recordings import (
    CHUNKINGS,
    Recording,
    changed,
    differences,
    observe,
    recordings,
)

TRANSPORTS: dict[str, OpenTransport | None] = {"sdk": None, "aiohttp": AiohttpTransport}
RECORDINGS = recordings()

needs_data = pytest.mark.skipif(not RECORDINGS, reason="MOA_TEST_DATA names no recordings")
each_recording = pytest.mark.parametrize(
    "recording", RECORDINGS, ids=[recording.name for recording in RECORDINGS]
)


@needs_data
@each_recording
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_recording_is_read_as_its_provider_means_it(
    recording: Recording, transport: str, chunking: str
) -> None:
    pieces = CHUNKINGS[chunking]
    observed = asyncio.run(observe(recording, TRANSPORTS[transport], pieces))
    assert differences(recording.expected, observed) == []


@needs_data
@each_recording
def test_every_field_that_is_expected_is_compared(recording: Recording) -> None:
    observed = asyncio.run(observe(recording, AiohttpTransport, CHUNKINGS["whole"]))
    for name, expected in changed(recording.expected):
        assert differences(expected, observed), f"a change of {name} goes unnoticed"
