"""A sentence spoken once by a bot's own voice, outside of any call, to be stored and played word by word later.

The voice is opened as for a call and asked for the sentence as if it were a greeting; what it plays is collected at
the speed at which it comes. Models do not promise to be word-exact: what was really said comes along for the owner.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.errors import BackendLost
from extenbot.interfaces import Bot, Played, ToolCall, VoiceOrder
from extenbot.media import g711
from extenbot.surroundings import OpenVoice

LAW = "PCMU"
PATIENCE = 30.0
"""Seconds until a sentence must be there."""

LONGEST = 60 * g711.RATE
"""Bytes; a voice that goes on talking has misunderstood."""

_LOOK = 0.1


class _Collected:
    """A playout that is always done at once."""

    on_drained: Callable[[], None] | None = None
    on_began: Callable[[str], None] | None = None

    def __init__(self) -> None:
        self.audio = b""
        self.held = False
        self._received: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        return True

    @property
    def waiting(self) -> int:
        return 0

    def add(self, item: str, audio: bytes) -> None:
        self.audio += audio
        self._received[item] = self._received.get(item, 0) + len(audio)

    def finish(self, item: str) -> None: ...

    def played(self, item: str) -> Played:
        received = self._received.get(item, 0)
        return Played(item, received, received)

    def cut(self) -> tuple[Played, ...]:
        return ()


class Speaking:
    """`spoken` fires with the G.711 (mu-law) and the words, or fails with `BackendLost`."""

    def __init__(self, clock: IReactorTime, open_voice: OpenVoice, bot: Bot, text: str, call_id: str) -> None:
        self.spoken: Deferred[tuple[bytes, str]] = Deferred(lambda _spoken: self._give_up("It was given up."))
        self.cost = 0.0
        """USD, once `spoken` has fired or failed: it costs also when nothing comes of it."""
        self._clock = clock
        self._until = clock.seconds() + PATIENCE
        self._playout = _Collected()
        self._look_again: IDelayedCall | None = None
        self._outcome: BackendLost | None = None
        order = VoiceOrder(bot=bot, call_id=call_id, format="audio/pcmu", welcome=text)
        try:
            self._voice = open_voice(order, self._playout, self, self)
        except BackendLost as why:
            self.spoken.errback(why)

    # -- What the voice tells us --

    def opened(self) -> None:
        self._voice.greet()
        self._look_again = self._clock.callLater(_LOOK, self._look)

    def prepared(self) -> None: ...

    def asked(self, tool: ToolCall) -> None:
        self._voice.answered(tool.call_id, "Not now.", speak=False)

    def approval(self, tool: ToolCall) -> None:
        self._voice.approved(tool.call_id, yes=False)

    def leaving(self, tool: ToolCall) -> None: ...

    def lost(self, why: BackendLost) -> None:
        self._end()
        self.spoken.errback(why)

    def finished(self) -> None:
        self._end()
        if self._outcome is not None:
            self.spoken.errback(self._outcome)
        else:
            words = " ".join(line.text for line in self._voice.transcript if line.speaker == "bot")
            self.spoken.callback((self._playout.audio, words))

    # -- CallLog: nobody's record --

    def happened(self, what: str, /, **fields: object) -> None: ...

    def elapsed(self) -> float:
        return 0.0

    # -- Our own --

    def _look(self) -> None:
        """The whole of it is there when nothing more is due."""
        self._look_again = None
        if len(self._playout.audio) > LONGEST:
            self._give_up("The voice went on talking for more than a minute.")
        elif self._playout.audio and self._voice.idle_since is not None:
            self._voice.finish()
        elif self._clock.seconds() >= self._until:
            self._give_up(f"The voice did not say it within {PATIENCE:g} s.")
        else:
            self._look_again = self._clock.callLater(_LOOK, self._look)

    def _give_up(self, words: str) -> None:
        self._look_no_more()
        self._outcome = BackendLost("late", words)
        self._voice.finish()

    def _end(self) -> None:
        self._look_no_more()
        self.cost = self._voice.cost

    def _look_no_more(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
