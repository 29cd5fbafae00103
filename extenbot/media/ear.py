"""What the caller's audio is taken for, at the line: speech, noise, or the bot's own words coming back.

A speaker phone returns what it plays 20 to 400 ms later and 6 to 30 dB softer. Without care the service's turn
detection takes that for the caller, and the bot interrupts itself. So while the bot is heard, and a little longer, each
20 ms of the caller get a level, and three things bound what is speech: a floor that nobody's voice is below, the noise
where the caller is, and the echo to expect of what was sent.

The level is the sum of the square roots of the samples' amplitudes: one byte a sample, by `bytes.translate`, holds
the whole range of G.711, and what is 6 dB softer has a level of 0.71.

Whether there is echo is learned: the levels heard are compared with those sent, at each delay (Pearson's r). Echo
follows the bot's syllables (0.9), the caller's own words do not (hardly ever 0.7). Until the first verdict, after 1.3 s
of the bot, the worst is expected, and the gate only keeps the audio: if it was no echo, all of it is given on. What is
no louder than silence is given on at once even then; and where nothing but that follows the bot's first loud syllables,
as with a receiver, there is no echo, and nothing is late any more when the caller speaks. Sound that comes before that
is soon told from echo if it is quite unlike what was sent.
Verdicts come again while the bot speaks, so that lifting or laying down the receiver is noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from operator import mul

from extenbot.media import g711

STEP = 2
"""Every other sample is enough for a level."""

FAINT = 1700
"""Level of about -40 dB of full scale: nothing softer is speech."""

OVER_NOISE = 1.68
"""9 dB: speech is so far above the softest of the last seconds."""

STILL, OVER_STILL = 700, 1.41
"""Level of about -57 dB, and 6 dB: what is below, or so little above the softest of the last seconds, is silence."""

OVER_ECHO = 1.41
"""6 dB: speech is so far above the echo to expect."""

WORST = 0.71
"""Echo is 6 dB softer than what was sent, while nothing is known."""

ONSET, CALM = 2, 10
"""Turns above the bound that make the caller loud, and below it that make them quiet again."""

DELAYS = 28
"""Turns after which echo may come: 400 ms of the phone's, and what our own buffer adds."""

BEFORE, AFTER = 1, 5
"""Echo is expected so many turns before and after its delay: jitter, and the walls of a room."""

TAIL = 15
"""Turns that the gate stays closed after the last echo."""

VERDICT, FIRST, LATER = 64, 32, 12
"""Turns that are compared, and in how many of them the bot must have been heard for the first verdict and for others.

Pauses into which echo drove the bot are evidence too.
"""

CLEAR, ALIKE = 0.8, 0.7
"""Pearson's r that is taken for echo where none was expected, and where it was."""

UNLIKE, SOON = 0.7, 8
"""Pearson's r that no echo is below, and how often that is looked at before the first verdict: turns with sound.

The quickest echo verdict would be no good: after 0.3 s two voices are often alike by chance, but echo never unlike.
"""

LOUDEST = 1.19
"""What is 3 dB louder than what was sent is no echo."""

DOUBTS = 3
"""Verdicts against it after which echo is no longer expected."""

SELDOM = 8
"""Without echo, and without anything loud, only every so manieth verdict is really sought."""

EARLY = 5
"""Turns that are held back behind the closed gate, so that a first syllable is given on whole."""

LOUD, SYLLABLES = 4000, 6
"""Level of about -28 dB, and turns: when so many of the bot were so loud, the faintest echo would have been heard."""

FLOOR = 75
"""Turns in which the softest one is looked for."""

HOLE = 4
"""Turns without a packet that are taken for a loss; more are a phone that sends nothing while it hears nothing."""

_NEVER = 1 << 30
_MISSING = -1


@cache
def levels(law: str) -> bytes:
    """The square root of each code's amplitude, 0 to 255."""
    return bytes(round((abs(sample) / 32768) ** 0.5 * 255) for sample in g711.decoding(law))


def nobody(on: bool) -> None:
    """Nobody is told."""


def mended(heard: list[int]) -> list[int]:
    """The levels, those of lost packets as the ones around them: holes would make echo unlike what was sent."""
    if _MISSING not in heard:
        return heard
    mended, before, hole = [], 0, 0
    for level in heard:
        if level == _MISSING:
            hole += 1
            continue
        if hole:
            mended += [(before + level) // 2 if hole <= HOLE else 0] * hole
            hole = 0
        mended.append(level)
        before = level
    return mended + [before if hole <= HOLE else 0] * hole


def likeness(heard: list[int], sent: list[int], delays: range) -> tuple[float, int]:
    """Pearson's r of what was heard with what was sent before, and the delay at which it is greatest.

    Both end now; `sent` reaches back further, by the longest delay at least.
    """
    count, end = len(heard), len(sent)
    mean = sum(heard) // count
    moves = [level - mean for level in heard]
    mine = sum(map(mul, moves, moves))
    best = 0.0, 0
    for delay in delays:
        window = sent[end - delay - count : end - delay]
        total = sum(window)
        theirs = sum(map(mul, window, window)) - total * total / count
        if mine > 0 and theirs > 0:
            best = max(best, (sum(map(mul, moves, window)) / (mine * theirs) ** 0.5, delay))
    return best


def strength(heard: list[int], sent: list[int], delay: int) -> float:
    """How loud the echo is that comes so many turns later, as a share of the levels sent."""
    start = len(sent) - len(heard) - delay
    around = [max(sent[at - 1 : at + 2]) for at in range(start, start + len(heard))]
    clear = max(around) // 4  # 24 dB below the loudest it is lost in the noise
    shares = sorted(level / said for level, said in zip(heard, around, strict=True) if said > clear)
    return shares[len(shares) * 9 // 10]


class Ear:
    """Hears 20 ms of the caller at each turn and gives it on.

    `tell` is told True when the caller becomes loud while the bot is heard (or waits), and False when they are quiet
    again. With `gate`, echo is given as silence.
    """

    def __init__(self, law: str, nothing: bytes, give: Callable[[bytes], None]) -> None:
        """`law` is the one of all audio here, `nothing` the very object that stands for 20 ms in which nothing came.

        `give` gets what the model shall hear.
        """
        self.give = give
        self.tell: Callable[[bool], None] = nobody
        self.gate = False
        self._levels = levels(law)
        self._nothing = nothing
        self._silence = g711.SILENCE[law] * g711.FRAME
        # The noise.
        self._least = self._least_before = _NEVER
        self._age = 0
        self._noise = float(_NEVER)  # the bounds that follow
        self._still = 0.0
        # The caller.
        self._run = self._calm = 0
        self._loud = self._told = False
        # The echo.
        self._sent: list[int] = []
        self._heard: list[int] = []
        self._kept: deque[bytes] = deque()
        self._awake = 0  # turns for which we go on listening
        self._turns = 0
        self._forget()

    def renew(self) -> None:
        """The audio comes from somebody else now."""
        self._release()
        self._forget()

    def _forget(self) -> None:
        self._known = False
        self._echo = OVER_ECHO * WORST  # what is sent becomes at most this much, with the margin; 0: there is none
        self._delay = 0
        self._window = slice(-DELAYS - AFTER, -1)
        self._doubts = self._skipped = 0
        self._suspect = False  # something loud was heard since the last verdict
        self._syllables, self._proof = SYLLABLES, DELAYS  # what is missing to know that there is none
        self._sounds = 0  # turns with sound in them before the first verdict

    def heard(self, audio: bytes, said: bytes | None, waits: bool) -> None:
        """The caller's next 20 ms. On the hot path.

        `said` is what was sent in this turn, None for silence; `waits` that the bot pauses in the middle of its words.
        """
        if said is not None or waits:
            if not self._awake:
                self._wake()
            self._awake = self._delay + TAIL if self._known else DELAYS + AFTER
        elif self._awake:
            self._awake -= 1
            if not self._awake:
                if self._loud:
                    self._awake = 1
                elif not self._known:
                    self._judge()
        else:
            self._age += 1
            if not self._age & 7 and audio is not self._nothing:
                self._listen(sum(audio[::STEP].translate(self._levels)))
            self.give(audio)
            return
        if audio is self._nothing:
            level, found = 0, _MISSING
        else:
            level = found = sum(audio[::STEP].translate(self._levels))
            self._age += 1
            if level < self._least or self._age > FLOOR:
                self._listen(level)
        sent = self._sent
        spoken = 0
        if said is not None:
            spoken = sum(said[: g711.FRAME : STEP].translate(self._levels))
            if len(said) < g711.FRAME:
                spoken = spoken * g711.FRAME // len(said)
        sent.append(spoken)
        self._heard.append(found)
        if not self._known:
            self._trust(level, spoken, came=audio is not self._nothing)
        bound = self._noise
        if self._echo:
            bound = max(bound, self._echo * max(sent[self._window]))
        if level > bound:
            self._calm = 0
            self._run += 1
            if self._run >= ONSET:
                self._loud = True
                if not self._told and (said is not None or waits):
                    self._told = self._suspect = True
                    self.tell(True)
        else:
            self._run = 0
            if self._loud:
                self._calm += 1
                if self._calm >= CALM:
                    self._quieten()
        self._turns += 1
        if self._turns >= VERDICT:
            self._judge()
        if self._loud or not self._echo or not self.gate or not self._awake:
            if self._kept:
                self._release()
            self.give(audio)
        elif not self._known and not self._kept and level <= self._still:
            self.give(audio)
        else:
            self._kept.append(audio)
            while self._known and len(self._kept) > EARLY:
                self._kept.popleft()
                self.give(self._silence)

    def _listen(self, level: int) -> None:
        """Another level of what may be noise."""
        self._least = min(self._least, level)
        least = min(self._least, self._least_before)
        self._noise, self._still = max(FAINT, OVER_NOISE * least), max(STILL, OVER_STILL * least)
        if self._age > FLOOR:
            self._least_before, self._least, self._age = self._least, _NEVER, 0

    def _quieten(self) -> None:
        self._loud = False
        self._run = self._calm = 0
        if self._told:
            self._told = False
            self.tell(False)

    # -- The bot begins and ends --

    def _wake(self) -> None:
        self._sent = [0] * (VERDICT + DELAYS + AFTER)
        self._heard = []
        self._turns = 0

    def _release(self) -> None:
        """What was held back was no echo."""
        kept = self._kept
        while kept:
            self.give(kept.popleft())

    # -- The verdict --

    def _trust(self, level: int, spoken: int, *, came: bool) -> None:
        """Still before the first verdict: whether only silence follows the bot's first loud syllables."""
        if level > self._still:
            self._syllables, self._proof = SYLLABLES, DELAYS
            self._sounds += 1
            if not self._sounds % SOON and self._unlike():
                self._known, self._echo = True, 0.0
        elif self._syllables:
            self._syllables -= spoken > LOUD
        elif came:
            self._proof -= 1
            if not self._proof:
                self._known, self._echo = True, 0.0

    def _unlike(self) -> bool:
        """Whether what was heard so far cannot be echo."""
        heard = mended(self._heard[-VERDICT:])
        said = self._sent[-len(heard) :]
        loud = sum(level > LOUD for level in said)
        return loud >= SYLLABLES and likeness(heard, self._sent, range(DELAYS))[0] < UNLIKE

    def _judge(self) -> None:
        """Whether what was heard in the last second was echo of what was sent."""
        self._turns = 0
        del self._sent[: -VERDICT - DELAYS - AFTER], self._heard[:-VERDICT]
        heard, sent = mended(self._heard), self._sent
        self._skipped += 1
        unlikely = self._known and not self._echo and not self._suspect
        spoken = len(heard) - sent[-len(heard) :].count(0)
        if spoken < (LATER if self._known else FIRST) or (unlikely and self._skipped < SELDOM):
            return
        self._skipped, self._suspect = 0, self._loud
        alike, delay, enough, near = 0.0, 0, CLEAR, self._delay
        expected = self._known and self._echo > 0
        if expected:
            enough = ALIKE
            alike, delay = likeness(heard, sent, range(max(0, near - 2), min(DELAYS, near + 3)))
        if alike < enough:
            enough = CLEAR
            alike, delay = likeness(heard, sent, range(DELAYS))
        share = strength(heard, sent, delay) if alike >= enough else _NEVER
        if share <= LOUDEST:
            # The first time it may have been chance: two people who began to speak at once.
            self._known, self._doubts = True, 0 if expected else DOUBTS
            echo = OVER_ECHO * share
            # Less clear, it has the caller's own words in it, and they would have to be louder than themselves.
            self._echo, self._delay = min(echo, self._echo) if expected and alike < CLEAR else echo, delay
            self._window = slice(-delay - AFTER - 1, BEFORE - delay if delay > BEFORE else None)
        elif not self._known or self._doubts >= DOUBTS:
            self._known, self._echo, self._delay = True, 0.0, 0
        else:
            self._doubts += 1
