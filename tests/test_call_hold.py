"""Whole calls that are put on hold, and whose audio moves."""

from __future__ import annotations

import re

from tests.case import GREETING, PLAIN, Case
from tests.memory import MEDIA, bot, loudness, offer


class Hold(Case):
    def test_hold(self) -> None:
        """While the caller is on hold the music does not reach the model, and nothing is sent; then it goes on."""
        world, caller = self.up(rtp_timeout=5)
        world.run(2)
        caller.again(offer(direction="sendonly"))
        world.run(0.5)
        self.assertIn(b"a=recvonly", caller.last.body)
        before, sent = len(world.appended()), len(caller.packets)
        caller.hz = 800
        world.run(3)
        caller.talking = False  # nor is silence taken for an end
        world.run(8)
        self.assertEqual(len(caller.packets), sent)
        self.assertEqual(len(world.appended()), before)
        caller.hz, caller.talking = 0, True
        caller.again(offer())
        world.run(1)
        self.assertIn(b"a=sendrecv", caller.last.body)
        self.assertApproximates(len(world.appended()) - before, 8000, 640)
        self.assertGreater(len(caller.packets), sent + 40)
        self.assertEqual(len({packet.ssrc for _, packet in caller.packets}), 1)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_each_way(self) -> None:
        """However it is held, what the bot was saying waits and is said to its end; the music makes no turn."""
        for held, answer in (
            (offer(direction="sendonly"), b"a=recvonly"),
            (offer(direction="inactive"), b"a=inactive"),
            (offer(address=("0.0.0.0", MEDIA[1])), b"a=recvonly"),
            (offer(address=(MEDIA[0], 0)), b"m=audio 0 RTP/AVP"),
        ):
            world, caller = self.up('speed 4\non greet: tone 440 for 3 s "A story"\n')
            world.run(0.5)
            before = len(caller.heard().strip(b"\xff"))
            caller.again(held)
            world.run(0.1)
            self.assertEqual(caller.codes[-1], 200)
            self.assertIn(answer, caller.last.body)
            given, sent, caller.hz = len(world.appended()), len(caller.packets), 800
            world.run(5)
            self.assertEqual((len(world.appended()), len(caller.packets)), (given, sent))
            caller.hz = 0
            caller.again(offer())
            world.run(4)
            self.assertEqual(world.voice("input_audio_buffer.speech_started"), [])
            self.assertGreater(before, 800)
            self.assertApproximates(len(caller.heard().strip(b"\xff")), 24000, 200)
            caller.bye()
            self.ended(world, "caller hung up")

    def test_mute(self) -> None:
        """A phone that only listens is no lost phone."""
        world, caller = self.up(rtp_timeout=5)
        caller.talking = False
        caller.again(offer(direction="recvonly"))
        world.run(8)
        self.assertEqual(len(world.switch.calls), 1)
        caller.bye()

    def test_resume_without_offer(self) -> None:
        """A re-INVITE without SDP gets our offer, both ways again, and its answer counts (RFC 6337 5.3)."""
        world, caller = self.up()
        caller.again(offer(direction="sendonly"))
        world.run(0.5)
        sent = len(caller.packets)
        caller.ack_body = offer()
        caller.again(b"")
        world.run(1)
        self.assertIn(b"a=sendrecv", caller.last.body)
        self.assertGreater(len(caller.packets), sent + 40)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_moved(self) -> None:
        """Media moves to another address in the middle of the call, and our audio with it."""
        world, caller = self.up()
        world.run(0.2)
        there = ("192.0.2.99", 7000)
        world.phones[there] = caller
        del world.phones[caller.media]
        caller.media = there
        caller.packets.clear()
        caller.again(offer(address=there))
        world.run(1)
        self.assertGreater(len(caller.packets), 45)
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 50)

    def test_other_ip_version(self) -> None:
        """Media that moves to IPv6 gets a port there, and our answer names it; the IPv4 port is given back."""
        world, caller = self.up('speed 4\non greet: tone 440 for 3 s "A story"\n')
        self.assertIn(b"c=IN IP4 ", caller.last.body)
        there = ("2001:db8::77", 7000)
        world.phones[there] = caller
        del world.phones[caller.media]
        caller.media = there
        caller.packets.clear()
        caller.again(offer(address=there).replace(b"IN IP4", b"IN IP6"))
        world.run(0.5)
        self.assertIn(b"c=IN IP6 2001:db8::1\r\n", caller.last.body)
        self.assertEqual([":" in port.address[0] for port in world.ports], [True])
        self.assertTrue(caller.hears(440))
        before = len(caller.packets)
        self.assertGreater(before, 20)
        caller.again(offer(address=there).replace(b"IN IP4", b"IN IP6"))  # a refresh keeps the port
        world.run(0.5)
        self.assertEqual(world.opened, 2)
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 40)

    def test_ipv6_from_the_beginning(self) -> None:
        """An INVITE over IPv4 whose media is at an IPv6 address is answered with a port there."""
        world, caller = self.begin()
        there = ("2001:db8::77", 7000)
        world.phones[there] = caller
        caller.media = there
        caller.invite(offer(address=there).replace(b"IN IP4", b"IN IP6"))
        world.run(1)
        self.assertTrue(caller.hears(440))
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 20)

    def test_keys(self) -> None:
        """Over TLS the audio is encrypted; our key stays over a refresh, and changes when our address does."""
        world, caller = self.begin()
        world.transport = "TLS"
        lines = "a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj\r\n"
        here = offer(protocol="RTP/SAVP", more=lines)
        there = offer(address=("2001:db8::77", 7000), protocol="RTP/SAVP", more=lines).replace(b"IN IP4", b"IN IP6")
        caller.talking = False
        keys = []
        caller.invite(here)
        world.run(1)
        for again in (here, there, there):
            keys.append(re.findall(rb"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:(\S{40})\r\n", caller.last.body))
            caller.again(again)
            world.run(0.2)
        keys.append(re.findall(rb"inline:(\S{40})", caller.last.body))
        first, second, third, last = [found for [found] in keys]
        self.assertEqual((first, third), (second, last))
        self.assertNotEqual(second, third)
        self.assertIn(b" RTP/SAVP 0 101", caller.last.body)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_video(self) -> None:
        """A re-INVITE that adds video: the answer has a line for it, refused (RFC 3264 6), and the call goes on."""
        world, caller = self.up()
        caller.again(offer() + b"m=video 5000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n")
        world.run(0.1)
        self.assertEqual(caller.codes[-1], 200)
        self.assertIn(b"m=video 0 RTP/AVP 96", caller.last.body)
        self.assertIn(b"o=- 0 2 ", caller.last.body)  # another version of our description
        caller.bye()

    def test_garbage(self) -> None:
        """A re-INVITE that cannot be read gets 400, and the call goes on."""
        world, caller = self.up()
        caller.again(b"hello")
        world.run(1)
        self.assertEqual(caller.codes[-1], 400)
        self.assertTrue(caller.hears(440))
        caller.bye()

    def test_other_law(self) -> None:
        """A re-INVITE for the other law is taken: both hear each other on, and the voice never knows."""
        world, caller = self.up(GREETING, bot(manner=PLAIN))
        caller.again(offer("8 101"))
        caller.codec, caller.kind = "PCMA", 8
        world.run(0.1)
        self.assertEqual(caller.codes[-1], 200)
        self.assertIn(b"RTP/AVP 8 101", caller.last.body)
        now, given = world.clock.seconds(), len(world.appended())
        world.run(0.3)
        self.assertTrue(caller.hears(440, now))
        caller.hz = 800
        world.run(1)
        self.assertEqual({packet.payload_type for at, packet in caller.packets if at >= now}, {8})
        self.assertGreater(loudness(world.appended()[given:], "PCMU", 800), 1000)
        caller.bye()
        self.assertEqual(self.ended(world, "caller hung up").codec, "PCMA")

    def test_no_law(self) -> None:
        """A re-INVITE without G.711 gets 488, and the call goes on as it was."""
        world, caller = self.up()
        caller.acks = True
        caller.again(offer("9 101"))
        world.run(0.2)
        self.assertEqual(caller.codes[-1], 488)
        world.run(1)
        self.assertTrue(caller.hears(440))
        self.assertEqual({packet.payload_type for _, packet in caller.packets}, {0})
        caller.again(b"")  # what was refused is not in our next offer
        world.run(0.2)
        self.assertIn(b"RTP/AVP 0 101", caller.last.body)
        caller.bye()
