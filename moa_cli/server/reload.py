"""Checks for changed files while the server runs, and reads them again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from moa_cli.core.files.descriptors import is_shortage
from moa_cli.server.marks import marks_of
from moa_cli.server.reading import SettingsReader, Snapshot

# Seconds between two checks, and from a detected change to the next check, which finds whether the
# file is still changing.
_LOOK_SECONDS, _STILL_SECONDS = 0.5, 0.2
# Files that keep changing are read after this many seconds.
_RESTLESS_SECONDS = 1.0
# Seconds until the next try after an error: the missing file may be one that is not watched yet.
_AGAIN_SECONDS = 1.0


class Reloader:
    """A thread that reads files again once they have changed.

    Changed files are read once they are the same in two checks: an editor may empty a file before
    it writes, and half a file may be valid. A check is a `stat` of each file.

    reader: reads the files. reading: the reading so far. take: called in the event loop with a new
    reading, and whether `force` asked for it. bug: called in the event loop with an unexpected
    exception, after which the thread continues.
    """

    def __init__(
        self,
        reader: SettingsReader,
        reading: Snapshot,
        take: Callable[[Snapshot, bool], None],
        bug: Callable[[Exception], None],
    ) -> None:
        self._reader = reader
        self._reading = reading
        self._take = take
        self._bug = bug
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self._forced = self._ended = False
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self._thread.start()

    def force(self) -> None:
        self._forced = True
        self._wake.set()

    def close(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        reading, seen, restless_since, tried = self._reading, self._reading.marks, 0.0, 0.0
        while True:
            self._wake.wait(_LOOK_SECONDS if seen == reading.marks else _STILL_SECONDS)
            self._wake.clear()
            if self._ended:
                return
            # Reset before reading, so that a `force` during the reading causes another one.
            if forced := self._forced:
                self._forced = False
            try:
                marks = marks_of(self._reader.files(reading), seen)
                now = time.monotonic()
                changed = marks != reading.marks
                restless_since = (restless_since or now) if changed else 0.0
                still = changed and marks == seen
                restless = bool(restless_since) and now - restless_since >= _RESTLESS_SECONDS
                again = bool(reading.faults) and now - tried >= _AGAIN_SECONDS
                seen = marks
                if not (forced or still or restless or again):
                    continue
                tried, restless_since = now, 0.0
                reading = self._reader.read(reading, marks, everything=forced)
            except Exception as bug:
                # Without a free file descriptor, the next check tries again.
                if not is_shortage(bug):
                    self._call(self._bug, bug)
                continue
            self._call(self._take, reading, forced)

    def _call(self, what: Callable[..., None], *values: object) -> None:
        if not self._ended:
            self._loop.call_soon_threadsafe(what, *values)
