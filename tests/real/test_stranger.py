"""A stranger on the network who has found out the RTP port of a call."""

from __future__ import annotations

import socket

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import rtp
from tests.real.caller import Caller
from tests.real.harness import Service, new_folder, scripts

TALKATIVE = """speed 4
on greet: tone 440 for 5 s "Hello."
every 5 s: tone 440 for 5 s "And on."
"""


@pytest.mark.real
class Stranger(SynchronousTestCase):
    def test_guessed_port(self) -> None:
        """Twenty times as many packets as the phone sends earn the stranger nothing; the caller hears the bot on."""
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", talks=TALKATIVE))
        caller = Caller(self, service.sip, *service.bot("--model", "sandbox-talks"))
        place = caller.call()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.9.66", 0))
            stranger.setblocking(False)
            sequence = 0
            for _ in range(50):
                for _ in range(20):
                    packet = rtp.Packet(0, False, sequence, sequence * 160, 66, bytes(160))
                    stranger.sendto(rtp.write(packet), place)
                    sequence += 1
                caller.audio.wait_for(1)
            self.assertRaises(BlockingIOError, stranger.recv, 2048)
        caller.audio.wait_for_tone(440)
        caller.hang_up()
        [record] = service.calls()
        [event] = [event for event in record["events"] if event["what"] == "media.ignored"]
        self.assertEqual(event["fields"]["last_host"], "127.0.9.66")
        self.assertGreater(event["fields"]["packets"], 500)
