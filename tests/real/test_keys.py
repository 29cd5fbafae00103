"""A real phone (baresip) presses keys, which reach the model, and gets the keys that the bot presses."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Service, new_folder, scripts
from tests.real.test_transfer import silence

MESSAGE = """speed 4
on greet: tone 440 for 500 ms "Press a number."
on text:
    tone 600 for 500 ms "Thank you."
    call end_call
"""
PIN = """speed 4
on greet:
    tone 440 for 500 ms "Your PIN, please."
    call collect_digits {"length": 4, "purpose": "PIN"}
on output collect_digits:
    tone 600 for 500 ms "Thank you."
    call end_call
"""
MENU = """speed 4
on greet:
    tone 440 for 500 ms "One moment."
    call send_digits {"digits": "12#"}
on output send_digits: call end_call
"""


@pytest.mark.real
class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)

    def call(self, script: str, keys: str = "") -> tuple[Baresip, dict[str, Any]]:
        """A call in which the phone presses keys as soon as it hears something; the phone, and the record."""
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", keys=script))
        user, password = service.bot("--model", "sandbox-keys")
        account = f"<sip:{user}@127.0.0.1:{service.sip};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        # Its RTP comes from where its signalling does, so that its first key is heard already.
        phone = Baresip(self, account, silence(new_folder(self)), host="127.0.0.1")
        phone.process.wait_for("registered successfully")
        phone.do("dial", f"sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("CALL_RTPESTAB")  # it hears us
        for key in keys:
            phone.do("sndcode", key)
        phone.wait_for("CALL_CLOSED", 40)
        [record] = service.calls()
        return phone, record

    def pressed(self, record: dict[str, Any]) -> str:
        return "".join(event["fields"]["digit"] for event in record["events"] if event["what"] == "dtmf")

    def test_pressed(self) -> None:
        """The caller types 42# (RFC 4733): the model gets it as one message and answers it."""
        _, record = self.call(MESSAGE, "42#")
        self.assertEqual(self.pressed(record), "42#")
        lines = [(line["speaker"], line["text"]) for line in record["transcript"]]
        self.assertIn(("caller", "[The caller pressed 42#]"), lines)
        self.assertEqual(lines[-1], ("bot", "Thank you."))

    def test_collected(self) -> None:
        """The bot asks for a PIN and gets it as the answer of its tool."""
        _, record = self.call(PIN, "1234")
        [answer] = [event["fields"] for event in record["events"] if event["what"] == "tool.answered"]
        self.assertEqual((answer["name"], answer["output"]), ("collect_digits", "The caller pressed 1234."))
        self.assertEqual([line["text"] for line in record["transcript"]], ["Your PIN, please.", "Thank you."])

    def test_sent(self) -> None:
        """The bot presses 12# and the phone sees each key once."""
        phone, record = self.call(MENU)
        [answer] = [event["fields"] for event in record["events"] if event["what"] == "tool.answered"]
        self.assertEqual(answer["output"], "The keys have been sent.")
        keys = [event["param"] for event in phone.events if event["type"] == "CALL_DTMF_START"]
        self.assertEqual(keys, ["1", "2", "#"])
