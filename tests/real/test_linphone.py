"""linphone, a phone that knows SHA-256, registers and calls where nothing weaker is offered."""

from __future__ import annotations

import shutil

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Linphone, Service, new_folder, scripts


@pytest.mark.real
class Calls(SynchronousTestCase):
    def setUp(self) -> None:
        need("linphone", "apt-get install linphone-cli", shutil.which("linphonec") is not None)

    def call(self, digest: str) -> None:
        """Register and call where these algorithms are offered."""
        folder = scripts(new_folder(self) / "voices", tone='speed 4\non greet: tone 440 for 5 s "Hello."\n')
        service = Service(self, EXTENBOT_SIP_DIGEST=digest, EXTENBOT_SANDBOX_SCRIPTS=folder)
        user, password = service.bot("--model", "sandbox-tone")
        phone = Linphone(self)
        phone.register(user, f"127.0.0.1:{service.sip}", password)
        phone.say(f"call sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("Media streams established with sip:openai")
        phone.say("terminate")
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "caller hung up")
        self.assertIsNotNone(record["answered"])

    def test_usual_offer(self) -> None:
        """Offered SHA-256 first and MD5 second, linphone registers and calls the bot."""
        self.call("SHA-256 MD5")

    def test_nothing_weaker(self) -> None:
        """Offered SHA-256 alone, it does so too: it is SHA-256 that it answers with."""
        self.call("SHA-256")
