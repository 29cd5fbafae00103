"""A caller whose phone gives the bot's words back, and one who speaks over them."""

from __future__ import annotations

from dataclasses import replace
from math import sin
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import g711
from extenbot.media.ear import AFTER, ALIKE, CLEAR, DELAYS, VERDICT, Ear, likeness
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from tests.media import test_line
from tests.media.test_line import AGREED, NAT, PBX, Given, Phone, Port
from tests.media.voices import FULL, coded, loudness, noise, voice

LAWS = {"PCMU": AGREED, "PCMA": replace(AGREED, codec="PCMA", payload_type=8, format="audio/pcma")}
BOT = voice(1, 9, 180)
CALLER = voice(2, 6, 120)
HISS = noise(3, 2, -60)


def softer(samples: tuple[int, ...], db: float) -> list[int]:
    factor = 10 ** (db / 20)
    return [round(sample * factor) for sample in samples]


class Room(test_line.Call):
    """A phone with a loudspeaker: what it plays comes back after `delay` ms, by `db` softer; None: a receiver."""

    def room(
        self,
        law: str = "PCMU",
        delay: int = 100,
        db: float | None = -10,
        ptime: int = 20,
        around: tuple[int, ...] = HISS,
    ) -> None:
        self.line.stop()
        self.law, self.delay = law, delay * g711.PER_MS
        self.factor = 0.0 if db is None else 10 ** (db / 20)
        self.around = around
        self.heard: list[bytes] = []
        self.given: dict[bytes, int] = {}  # what the model was given last when, by turn
        self.told: list[tuple[int, bool]] = []
        self.played: list[int] = []
        self.now = 0
        self.spoken: dict[int, bytes] = {}  # frames in which the caller speaks, by turn
        self.talk: tuple[int, list[int]] = 0, []
        self.port = Port()
        self.line = Line(
            self.clock, Pacer(self.clock), Given(1, 2, 3), replace(LAWS[law], ptime=ptime), law, NAT[0],
            self.give, self.keys.append,
        )  # fmt: skip
        self.line.start(self.port)
        self.addCleanup(self.line.stop)
        self.line.echo_gate = True
        self.line.on_loud = self.loud
        self.pauses = False
        self.lost: set[int] = set()  # turns whose packets do not arrive
        self.phone = Phone(self.line, PBX)
        self.clock.advance(0.001)
        self.pass_(20)

    def give(self, audio: bytes) -> None:
        self.heard.append(audio)
        self.given[audio] = self.now

    def loud(self, on: bool) -> None:
        self.told.append((self.now, on))
        if self.pauses:
            self.line.playout.held = on

    def says(self, samples: list[int]) -> None:
        """The caller begins to speak."""
        self.talk = self.now, samples

    def pass_(self, turns: int) -> None:
        """20 ms each: the phone's microphone, and what is sent meanwhile."""
        decoding = g711.decoding(self.law)
        kind = LAWS[self.law].payload_type
        for _ in range(turns):
            at = len(self.port.sent)
            start = self.now * 160
            begun, talk = self.talk
            own = talk[start - begun * 160 : start - begun * 160 + 160]
            own += [0] * (160 - len(own))
            mixed = []
            for n in range(160):
                then = start + n - self.delay
                back = self.played[then] * self.factor if 0 <= then < len(self.played) else 0.0
                mixed.append(own[n] + round(back) + self.around[(start + n) % len(self.around)])
            frame = coded(self.law, mixed)
            if sum(map(abs, own)) > 160 * FULL * 10 ** (-38 / 20):
                self.spoken[self.now] = frame
            if self.now in self.lost:
                self.phone.sequence += 1
                self.phone.timestamp += 160
            else:
                self.phone.say(frame, kind)
            self.clock.advance(0.020)
            for packet, _ in self.port.sent[at:]:
                self.played += [decoding[code] for code in packet.payload]
            self.now += 1

    def bot(self, samples: tuple[int, ...] = BOT, item: str = "a") -> None:
        self.line.playout.add(item, coded(self.law, list(samples)))
        self.line.playout.finish(item)

    def leaked(self) -> int:
        """Frames the model was given that are neither silence nor hiss."""
        return sum(loudness(self.law, frame) > 10 ** (-52 / 20) for frame in self.heard)

    def passed(self) -> float:
        """The share of the caller's frames that reached the model."""
        given = set(self.heard)
        return sum(frame in given for frame in self.spoken.values()) / len(self.spoken)

    def late(self) -> list[int]:
        """ms, of each of the caller's frames that reached the model, beyond the 20 that the line takes by itself."""
        return [20 * (self.given[frame] - turn - 1) for turn, frame in self.spoken.items() if frame in self.given]


class Echo(Room):
    def test_echo(self) -> None:
        """At every delay and loudness, in both laws, the bot does not hear itself, and is not interrupted by itself."""
        for law in LAWS:
            for delay in (20, 100, 250, 400):
                for db in (-10, -20, -30):
                    self.room(law, delay, db)
                    self.bot(BOT[: 5 * 8000])
                    self.pass_(310)
                    self.assertEqual((self.leaked(), self.told), (0, []), (law, delay, db))
                    self.assertEqual(len(self.heard), self.now)

    def test_double_talk(self) -> None:
        """Who speaks over the bot 8 dB above its echo is noticed in 60 ms and heard from the first syllable on.

        That syllable comes 60 ms late, what follows is in time.
        """
        shares = []
        for law in LAWS:
            for delay in (20, 100, 250, 400):
                for db in (-10, -20, -30):
                    self.room(law, delay, db)
                    self.pauses = True
                    self.bot()
                    self.pass_(150)
                    self.assertEqual((self.leaked(), self.told), (0, []))
                    self.says(softer(CALLER, max(db + 8, -16)))
                    self.pass_(150)
                    first = min(self.spoken)
                    self.assertLessEqual(self.told[0][0] - first, 2, (law, delay, db))
                    self.assertLessEqual(self.given[self.spoken[first]] - first, 4, (law, delay, db))
                    shares.append(self.passed())
        self.assertGreater(min(shares), 0.9)
        self.assertGreater(sum(shares) / len(shares), 0.97)

    def test_packet_times(self) -> None:
        """Packets of 10, 30 and 40 ms make no difference."""
        for ptime in (10, 30, 40):
            self.room(delay=150, ptime=ptime)
            self.bot(BOT[: 5 * 8000])
            self.pass_(280)
            self.assertEqual((self.leaked(), self.told), (0, []), ptime)

    def test_lost_packets(self) -> None:
        """Echo with holes in it is still echo, though every fifth packet is lost."""
        for share in (0.05, 0.2):
            for delay in (20, 100, 200, 400):
                for db in (-8, -20):
                    self.room(delay=delay, db=db)
                    chance = Random(delay)
                    self.lost = {turn for turn in range(300) if chance.random() < share}
                    self.bot(BOT[: 4 * 8000])
                    self.pass_(200)
                    self.assertEqual((self.leaked(), self.told), (0, []), (share, delay, db))

    def test_laid_down(self) -> None:
        """When the receiver is exchanged for the loudspeaker in the middle of a call, the bot soon goes on unharmed."""
        self.room(db=None)
        self.pauses = True
        self.bot()
        self.pass_(150)
        self.assertEqual(self.told, [])
        self.factor = 0.3
        self.pass_(150)
        stumbled = len(self.told)
        self.assertLessEqual(stumbled, 8)
        self.line.playout.held = False
        self.bot(BOT, "b")
        leaked = self.leaked()
        self.pass_(500)
        self.assertEqual((self.leaked() - leaked, len(self.told)), (0, stumbled))

    def test_lifted(self) -> None:
        """When the loudspeaker is exchanged for the receiver, soft words over the bot are soon heard again."""
        self.room()
        self.bot(BOT + BOT)
        self.pass_(200)
        self.factor = 0.0
        self.pass_(450)
        self.says(softer(CALLER, -14))
        self.pass_(100)
        self.assertGreater(self.passed(), 0.95)
        self.assertEqual(self.told[0][1], True)

    def test_another_phone(self) -> None:
        """After a transfer the new phone is judged anew."""
        self.room()
        self.bot()
        self.pass_(200)
        self.assertGreater(self.line._ear._echo, 0.5)
        self.phone.ssrc, self.factor = 77, 0.0
        self.pass_(100)
        self.assertEqual(self.line._ear._echo, 0.0)


class Verdicts(SynchronousTestCase):
    def judged(self, own: int) -> tuple[float, float]:
        """r, and the echo that is then expected: 0.3 was known, it has become 0.6, and the caller says `own` more."""
        chance = Random(3)
        ear = Ear("PCMU", b"", list[bytes]().append)
        ear._sent = [chance.randrange(6000) for _ in range(VERDICT + DELAYS + AFTER)]
        ear._heard = [level * 6 // 10 + chance.randrange(1 + own) for level in ear._sent[-VERDICT - 5 : -5]]
        ear._known, ear._echo, ear._delay = True, 0.3, 5
        ear._judge()
        return likeness(ear._heard, ear._sent, range(5, 6))[0], ear._echo

    def test_louder(self) -> None:
        """Clear echo that is louder than before raises what is expected of it."""
        alike, echo = self.judged(500)
        self.assertGreater(alike, 0.9)
        self.assertGreater(echo, 0.6)

    def test_words_in_time_with_the_bot(self) -> None:
        """The caller's own words in it do not: they would have to be louder than themselves for the next second."""
        alike, echo = self.judged(3400)
        self.assertTrue(ALIKE < alike < CLEAR, alike)
        self.assertEqual(echo, 0.3)


class NoEcho(Room):
    def test_from_the_first_word(self) -> None:
        """A caller with a receiver who talks over the whole greeting is given on whole, and soon noticed."""
        self.room(db=None)
        self.bot()
        self.pass_(10)
        self.says(softer(CALLER, -10))
        self.pass_(150)
        self.assertEqual(self.passed(), 1.0)
        self.assertEqual(len(self.heard), self.now)
        self.assertLess(self.told[0][0], 100)

    def test_first_barge_in(self) -> None:
        """One second into the greeting nothing of a caller with a receiver is late: it was silent on their side."""
        for loud in (-5, -16):
            for start in range(50, 90, 5):
                self.room(db=None)
                self.bot()
                self.pass_(start)
                self.says(softer(CALLER[: 35 * 160], loud))
                for _ in range(40):
                    self.pass_(1)
                    self.assertEqual(len(self.heard), self.now, (loud, start))
                self.assertEqual((self.passed(), self.told[0]), (1.0, (min(self.spoken) + 2, True)))

    def test_over_the_first_words(self) -> None:
        """Who says hello while the bot begins to greet is told from its echo in 0.2 s, seldom 0.4 s, and loses nothing.

        What was held back until then comes at once.
        """
        late = []
        for loud in (-5, -16):
            for start in range(0, 50, 5):
                self.room(db=None)
                self.bot()
                self.pass_(start)
                self.says(softer(CALLER[: 80 * 160], loud))
                self.pass_(100)
                self.assertEqual(self.passed(), 1.0)
                late.append(max(self.late()))
                self.assertEqual(self.late()[-1], 0)
        self.assertLessEqual(max(late), 420)
        self.assertLessEqual(sorted(late)[len(late) // 2], 200)

    def test_silence_is_never_late(self) -> None:
        """While nobody knows yet whether there is echo, the model hears the silence at its time."""
        self.room(db=None)
        self.bot()
        for _ in range(40):
            self.pass_(1)
            self.assertEqual(len(self.heard), self.now)

    def test_gate_off(self) -> None:
        """Without the gate everything is given on at its time."""
        self.room()
        self.line.echo_gate = False
        self.bot()
        self.pass_(200)
        self.assertGreater(self.leaked(), 80)
        self.assertEqual((len(self.heard), self.told), (self.now, []))

    def test_after_the_bot(self) -> None:
        """Half a second after the bot the softest word passes at once."""
        self.room()
        self.bot(BOT[: 3 * 8000])
        self.pass_(150 + 5 + 25)
        self.says(softer(CALLER, -16))
        for _ in range(60):
            self.pass_(1)
            self.assertEqual(len(self.heard), self.now)
        self.assertEqual((self.passed(), self.told), (1.0, []))


class Loud(Room):
    def test_nobody_to_interrupt(self) -> None:
        """While the bot is silent nobody is told how loud the caller is."""
        self.room(db=None)
        self.says(list(CALLER))
        self.pass_(200)
        self.assertEqual(self.told, [])

    def test_two_frames(self) -> None:
        """A click of 20 ms is not speech; 40 ms are, and 200 ms of quiet end it."""
        self.room(db=None)
        self.bot()
        self.pass_(150)
        loud = list(CALLER[1600:1920])
        self.says(loud[:160])
        self.pass_(30)
        self.assertEqual(self.told, [])
        self.says(loud)
        begun = self.now
        self.pass_(30)
        (on, true), (off, false) = self.told
        self.assertEqual((true, false), (True, False))
        self.assertLessEqual(on - begun, 2)
        self.assertEqual(off - on, 10)

    def test_in_a_pause(self) -> None:
        """While the bot waits in the middle of a sentence it is told as well."""
        self.room(db=None)
        self.bot()
        self.pass_(150)
        self.line.playout.held = True
        self.pass_(20)
        self.says(list(CALLER))
        self.pass_(20)
        self.assertEqual([on for _, on in self.told], [True])

    def test_already_talking(self) -> None:
        """A bot that begins while the caller talks is told at once."""
        self.room(db=None)
        self.pass_(60)
        self.says(list(CALLER))
        self.pass_(10)
        begun = self.now
        self.bot()
        self.pass_(5)
        self.assertEqual([on for _, on in self.told], [True])
        self.assertLess(self.told[0][0] - begun, 4)

    def test_steady(self) -> None:
        """A fan or a tone interrupts once; then it is what silence sounds like, and a voice above it is noticed."""
        for number, sound in enumerate((noise(5, 1, -32), tuple(round(3000 * sin(0.3 * n)) for n in range(8000)))):
            self.room(db=None)
            self.pauses = True
            self.bot(BOT + BOT)
            self.pass_(150)
            steady = list(sound) * 12
            self.says(steady)
            self.pass_(400)
            self.assertEqual([on for _, on in self.told], [True, False], number)
            self.assertLess(self.told[1][0] - self.told[0][0], 175)
            start = (self.now - self.talk[0]) * 160
            for at, sample in enumerate(CALLER[: 3 * 8000]):
                steady[start + at] += 2 * sample
            self.pass_(100)
            self.assertEqual(self.told[2][1], True)

    def test_noise_from_the_beginning(self) -> None:
        """A caller in a loud place does not stop the greeting by that."""
        self.room(db=None, around=noise(6, 2, -34))
        self.bot()
        self.pass_(300)
        self.assertEqual(self.told, [])

    def test_silent_phone(self) -> None:
        """A phone that sends nothing in silence (VAD) is understood when it does."""
        self.room(db=None)
        self.bot()
        for _ in range(150):
            self.clock.advance(0.020)
        self.phone.timestamp += 150 * 160
        self.now += 150
        self.says(list(CALLER))
        self.pass_(25)
        self.assertEqual([on for _, on in self.told][:1], [True])
        self.assertGreater(self.passed(), 0.9)  # the last is still in the jitter buffer
