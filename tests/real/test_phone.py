"""A real phone (baresip) talks with the demo bot; what both heard is checked by speech recognition."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Service
from tests.real.speech import spoken, transcribed

#: the words that carry it: over a telephone line, small ones such as "in" and "and" are easily taken for each other
SENTENCE = r"\bweather\b.*\blondon\b.*\bnice today\b"


@pytest.mark.real
class Conversation(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        need("sox", "apt-get install sox", shutil.which("sox") is not None)
        need("faster-whisper", "pip install extenbot[speech]", find_spec("faster_whisper") is not None)

    def call(self, codec: str, *parts: float | str) -> tuple[str, dict[str, Any]]:
        """Register as the demo bot, call it, play `parts`; returns what the phone heard and the call record."""
        service = Service(self)
        user, password = service.wait_for(r"username (\S+), password (\S+)").groups()
        account = f"<sip:{user}@127.0.0.1:{service.sip};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        sound = spoken(Path(self.mktemp()).with_suffix(".wav"), *parts, 30.0)
        phone = Baresip(self, account, sound, codecs=codec)
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("CALL_ESTABLISHED")
        phone.wait_for("CALL_CLOSED", 60)
        phone.process.stop()
        [record] = service.calls()
        return transcribed(phone.recording()), record

    def check(self, codec: str) -> None:
        heard, record = self.call(codec, 6.0, "The weather in London is nice today.", 8.0, "Goodbye.")
        self.assertIn("how can i help you", heard)
        self.assertRegex(heard, rf"you said.*{SENTENCE}")
        self.assertEqual(record["codec"], codec)
        self.assertEqual(record["end_reason"], "bot hung up")
        caller = " ".join(line["text"] for line in record["transcript"] if line["speaker"] == "caller").lower()
        bot = " ".join(line["text"] for line in record["transcript"] if line["speaker"] == "bot").lower()
        self.assertRegex(caller, SENTENCE)
        self.assertIn("how can i help you", bot)
        self.assertRegex(bot, rf"you said.*{SENTENCE}")
        self.assertGreater(record["packets_received"], 500)
        self.assertEqual(record["packets_lost"], 0)

    def test_mu_law(self) -> None:
        """In mu-law the phone hears the greeting and an answer that quotes its sentence, and the record agrees."""
        self.check("PCMU")

    def test_a_law(self) -> None:
        """The same in A-law."""
        self.check("PCMA")
