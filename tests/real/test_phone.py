"""A real phone (baresip) talks with the demo bot; what both heard is checked by speech recognition."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Service
from tests.real.speech import share, spoken, transcribed

SENTENCE = "The weather in London is nice today."


@pytest.mark.real
class Conversation(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        need("sox", "apt-get install sox", shutil.which("sox") is not None)
        need("faster-whisper", "pip install extenbot[speech]", find_spec("faster_whisper") is not None)

    def call(self, codec: str) -> tuple[str, dict[str, Any]]:
        """Register as the demo bot, call it, say the sentence and goodbye; what the phone heard, and the record."""
        service = Service(self)
        user, password = service.credentials()
        account = f"<sip:{user}@127.0.0.1:{service.sip};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        phone = Baresip(self, account, spoken(self, 60.0), codecs=codec)
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("CALL_ESTABLISHED")
        for sentence in (SENTENCE, "Goodbye."):
            phone.listen()
            phone.play(spoken(self, sentence, 60.0))
        phone.wait_for("CALL_CLOSED", 60)
        phone.process.stop()
        [record] = service.calls()
        return transcribed(phone.recording()), record

    def check(self, codec: str) -> None:
        heard, record = self.call(codec)
        self.assertIn("how can i help you", heard)
        self.assertGreater(share(f"You said: {SENTENCE}", heard), 0.7)
        self.assertEqual(record["codec"], codec)
        self.assertEqual(record["end_reason"], "bot hung up")
        caller = " ".join(line["text"] for line in record["transcript"] if line["speaker"] == "caller").lower()
        bot = " ".join(line["text"] for line in record["transcript"] if line["speaker"] == "bot").lower()
        self.assertGreater(share(SENTENCE, caller), 0.7)
        self.assertIn("how can i help you", bot)
        self.assertGreater(share(f"You said: {SENTENCE}", bot), 0.7)
        self.assertGreater(record["packets_received"], 400)
        self.assertEqual(record["packets_lost"], 0)

    def test_mu_law(self) -> None:
        """In mu-law the phone hears the greeting and an answer that quotes its sentence, and the record agrees."""
        self.check("PCMU")

    def test_a_law(self) -> None:
        """The same in A-law."""
        self.check("PCMA")
