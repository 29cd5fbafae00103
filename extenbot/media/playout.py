"""Bot audio waiting for its turns, with a ledger of what really left (implements `interfaces.Playout`).

The voice model speaks much faster than real time, so minutes may wait here. Chunks stay as
they came; a turn cuts one slice and copies nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from extenbot.interfaces import Played
from extenbot.media import g711

MOST = 30 * 60 * g711.RATE
"""Bytes that may wait: no voice has half an hour to say, and one that sends without end shall not fill the memory."""

PATIENCE = 2
"""Turns that a partial frame of an unfinished item waits for more audio, before it is padded and sent."""


class _Item:
    __slots__ = ("chunks", "finished", "name", "offset", "received", "sent", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.chunks: deque[bytes] = deque()
        self.offset = 0  # of the first byte in chunks[0] that has not left
        self.waiting = 0
        self.received = 0
        self.sent = 0
        self.finished = False

    def take(self, size: int) -> bytes:
        """The next `size` waiting bytes; there must be that many."""
        self.waiting -= size
        self.sent += size
        chunks, offset = self.chunks, self.offset
        chunk, end = chunks[0], offset + size
        if end < len(chunk):
            self.offset = end
            return chunk[offset:end]
        parts = []
        while size:
            part = chunks[0][offset : offset + size]
            parts.append(part)
            size -= len(part)
            offset += len(part)
            if offset == len(chunks[0]):
                chunks.popleft()
                offset = 0
        self.offset = offset
        return b"".join(parts)


class PlayoutQueue:
    """The waiting audio of one call in `codec`."""

    on_drained: Callable[[], None] | None
    on_began: Callable[[str], None] | None
    held: bool

    def __init__(self, codec: str) -> None:
        self.on_drained = None
        self.on_began = None
        self.held = False
        self._silence = g711.SILENCE[codec]
        self._items: dict[str, _Item] = {}
        self._turns: deque[_Item] = deque()  # not yet ended, in the order they were first added
        self._waiting = 0
        self._patience = PATIENCE
        self._drained = False

    @property
    def empty(self) -> bool:
        """Nothing waits; the last frame may still be on its way out."""
        return not self._waiting

    @property
    def waiting(self) -> int:
        """Bytes that have not left."""
        return self._waiting

    def add(self, item: str, audio: bytes) -> None:
        """Queue audio of `item`, up to `MOST`; items play in the order they were first added."""
        entry = self._items.get(item)
        if entry is None:
            entry = self._items[item] = _Item(item)
        if entry not in self._turns:
            self._turns.append(entry)
        if audio and self._waiting + len(audio) <= MOST:
            entry.chunks.append(audio)
            entry.waiting += len(audio)
            entry.received += len(audio)
            self._waiting += len(audio)
            self._patience = PATIENCE
            self._drained = False

    def finish(self, item: str) -> None:
        """No more audio of `item` will come: a partial last frame may be padded and sent."""
        entry = self._items.get(item)
        if entry is not None:
            entry.finished = True
            if not entry.waiting and entry in self._turns:
                self._turns.remove(entry)

    def played(self, item: str) -> Played:
        """The count so far, also of items that have ended; zero for one never seen."""
        entry = self._items.get(item)
        return Played(item, entry.received, entry.sent) if entry else Played(item, 0, 0)

    def cut(self) -> tuple[Played, ...]:
        """Drop all that waits; the items that lost audio or were not finished yet, in order."""
        victims = tuple(Played(entry.name, entry.received, entry.sent) for entry in self._turns)
        for entry in self._turns:
            entry.chunks.clear()
            entry.offset = entry.waiting = 0
        self._turns.clear()
        self._waiting = 0
        self._patience = PATIENCE
        return victims

    def next(self, size: int) -> bytes | None:
        """The next `size` bytes for the wire, padded with silence at the end of an item; None when there are none.

        `on_drained` is called from the turn after the last frame's, when that frame's time on the wire is over.
        While it is held the queue does nothing at all: there are no frames, no calls, and no patience is lost.
        """
        if self.held:
            return None
        if self._drained:
            self._drained = False
            if self.on_drained is not None:
                self.on_drained()
        if not self._waiting or self.held:
            return None
        # An earlier item that is still open but has nothing must not hold up the one behind it.
        entry = next(entry for entry in self._turns if entry.waiting)
        real = entry.waiting
        if real >= size:
            real = size
        elif not entry.finished and self._patience:
            self._patience -= 1
            return None
        first = not entry.sent
        frame = entry.take(real)
        if entry.finished and not entry.waiting:
            self._turns.remove(entry)
        self._waiting -= real
        self._drained = not self._waiting
        if first and self.on_began is not None:
            self.on_began(entry.name)
        return frame if real == size else frame + self._silence * (size - real)
