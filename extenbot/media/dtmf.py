"""Keys pressed on the phone, from RTP telephone events (RFC 4733 2.3, 2.5)."""

from __future__ import annotations

from extenbot.media.rtp import later

KEYS = "0123456789*#ABCD"
"""By event code (RFC 4733 3.2)."""

ROWS = (697, 770, 852, 941)
COLUMNS = (1209, 1336, 1477, 1633)
"""Hz of the two tones of a key, on the pad 123A 456B 789C *0#D (ITU-T Q.23)."""

LONGEST = 0xFFFF
"""Longest duration that one event can carry; a key held longer goes on as a new segment (RFC 4733 2.5.1.3)."""


def is_event(payload: bytes) -> bool:
    """Whether a payload has the form of one telephone event that is a key."""
    return len(payload) == 4 and payload[0] < len(KEYS) and not payload[1] & 0x40


class Keys:
    """Reads the events of one RTP stream; each key counts once, at its first packet that arrives.

    An event is known by its timestamp, so repetitions, lost beginnings and lost ends make no difference.
    """

    def __init__(self) -> None:
        self._timestamp: int | None = None
        self._event = -1
        self._continues: int | None = None  # timestamp at which a key still held would go on

    def put(self, timestamp: int, payload: bytes) -> str | None:
        """The key, when this packet is the first of its event."""
        if not is_event(payload):
            return None
        event, ended, duration = payload[0], payload[1] & 0x80, int.from_bytes(payload[2:4])
        known = self._timestamp
        new = known is None or later(timestamp, known) > 0
        if not new and timestamp != known:
            return None  # a repetition that was overtaken
        held_on = new and event == self._event and timestamp == self._continues
        self._timestamp, self._event = timestamp, event
        at_most = duration == LONGEST and not ended
        self._continues = (timestamp + duration) & 0xFFFFFFFF if at_most else None
        return KEYS[event] if new and not held_on else None
