"""Calls by the GPT-Live protocol over real sockets, without a key."""

from __future__ import annotations

import shutil

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.caller import Caller
from tests.real.harness import Service, new_folder
from tests.sandbox.served import Served

TALK = """speed 4
on greet:
    tone 440 for 1 s "Good morning!"
    call end_call
"""


@pytest.mark.real
class Live(SynchronousTestCase):
    def test_server_of_its_own(self) -> None:
        """A GPT-Live model at the address of a local voice elsewhere needs no key; its goodbye is heard to the end."""
        script = new_folder(self) / "talk.txt"
        script.write_text(TALK)
        served = Served("--script", str(script))
        self.addCleanup(served.stop)
        service = Service(self)
        caller = Caller(self, service.sip, *service.bot("--model", "gpt-live-1.1", "--ai-url", served.url))
        caller.call()
        caller.audio.wait_for_tone(440)
        caller.wait_for_bye()
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "bot hung up")
        self.assertEqual([(line["speaker"], line["text"]) for line in record["transcript"]], [("bot", "Good morning!")])

    def test_demo(self) -> None:
        """The demo voice greets by this protocol, too."""
        need("espeak-ng", "apt-get install espeak-ng", shutil.which("espeak-ng") is not None)
        service = Service(self)
        service.wait_for("hears and speaks|answers with tones only")
        bot = service.bot("--model", "sandbox-live", "--welcome", "Good morning, this is the demo.")
        caller = Caller(self, service.sip, *bot)
        caller.call()
        caller.audio.wait_for(150)
        heard = bytes(caller.audio.ends[0].heard)
        self.assertGreater(len(heard) - heard.count(0xFF) - heard.count(0x7F), 4000)
        caller.hang_up()
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "caller hung up")
        [line] = record["transcript"]
        self.assertTrue("Good morning, this is the demo.".startswith(line["text"]), line)
