"""A real phone (baresip) registers and calls over TCP, TLS and IPv6."""

from __future__ import annotations

import shutil
import socket
import wave
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.g711 import from_linear, to_linear, tone
from tests.memory import loudness
from tests.need import need
from tests.real.harness import Baresip, Service, free_port, new_folder, scripts
from tests.real.speech import spoken

SCRIPT = """on greet: tone 440 for 1 s "Hello."
on speech:
    tone 880 for 1 s "Goodbye."
    call end_call
"""


def certificate(test: SynchronousTestCase) -> dict[str, Any]:
    """Settings that name a certificate for 127.0.0.1."""
    folder = new_folder(test)
    made = trustme.CA().issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    made.cert_chain_pems[0].write_to_path(str(folder / "chain.pem"))
    return {"EXTENBOT_SIP_CERTIFICATE": str(folder / "chain.pem"), "EXTENBOT_SIP_KEY": str(folder / "key.pem")}


@pytest.mark.real
class Encrypted(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)

    def begin(self, transport: str, encryption: str) -> tuple[Service, Baresip]:
        """baresip calls a bot that says one tone at first and another when it has heard something."""
        tls = free_port()
        udp = free_port(socket.SOCK_DGRAM)
        service = Service(
            self,
            ports=(udp, free_port()),
            EXTENBOT_SIP_LISTEN=f"udp:{udp}:interface=127.0.0.1 tls:{tls}:interface=127.0.0.1",
            EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", tones=SCRIPT),
            **certificate(self),
        )
        user, password = service.bot("--model", "sandbox-tones")
        where = f"127.0.0.1:{tls if transport == 'tls' else udp};transport={transport}"
        account = f"<sip:{user}@{where}>;auth_user={user};auth_pass={password};regint=60;mediaenc={encryption}"
        phone = Baresip(self, account, sound(new_folder(self)))
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@{where}")
        return service, phone

    def test_both_ways(self) -> None:
        """Over TLS baresip and the bot hear each other's tones by SRTP, and no packet is lost or refused."""
        for encryption in ("srtp-mand", "srtp-mandf"):
            service, phone = self.begin("tls", encryption)
            phone.wait_for("CALL_ESTABLISHED")
            phone.process.wait_for("SRTP is Enabled")
            phone.wait_for("CALL_CLOSED")
            [record] = service.calls()
            self.assertEqual(record["end_reason"], "bot hung up")
            self.assertEqual(
                [line["text"] for line in record["transcript"] if line["speaker"] == "bot"], ["Hello.", "Goodbye."]
            )
            self.assertGreater(record["packets_received"], 100)
            self.assertEqual(record["packets_lost"], 0)
            phone.process.stop()
            self.assertNotIn("failed to decrypt", phone.process.output)
            with wave.open(str(phone.recording())) as file:
                heard = from_linear("PCMU", file.readframes(file.getnframes()))
            pieces = [heard[at : at + 1600] for at in range(0, len(heard), 1600)]
            for hz in (440, 880):
                self.assertGreater(max(loudness(part, "PCMU", hz) for part in pieces), 1000)
            service.stop()

    def test_keys_in_the_open(self) -> None:
        """Over UDP the keys could be read by others: the call is refused."""
        _, phone = self.begin("udp", "srtp-mand")
        self.assertIn("488", phone.wait_for("CALL_CLOSED")["param"])

    def test_optional(self) -> None:
        """baresip that would rather encrypt but need not is talked to in plain."""
        service, phone = self.begin("tls", "srtp")
        phone.wait_for("CALL_ESTABLISHED")
        phone.wait_for("CALL_CLOSED")
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "bot hung up")
        self.assertNotIn("SRTP is Enabled", phone.process.output)


def sound(folder: Path) -> Path:
    """Two seconds of silence, one of 800 Hz, then silence for a minute, as a WAV."""
    path = folder / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 16000) + to_linear("PCMU", tone("PCMU", 800, 1000)) + bytes(16000 * 60))
    return path


@pytest.mark.real
class Transports(SynchronousTestCase):
    def setUp(self) -> None:
        need("sox", "apt-get install sox", shutil.which("sox") is not None)
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)

    def call(self, transport: str, host: str = "127.0.0.1", **environment: Any) -> None:
        """Register the demo bot and call it; the record says by which way."""
        port = free_port(socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM, host)
        escaped = host.replace(":", "\\:")
        listen = f"{transport}:{port}:interface={escaped}"
        service = Service(self, EXTENBOT_SIP_LISTEN=listen, **environment)
        user, password = service.credentials()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        account = f"<sip:{user}@{where};transport={transport}>;auth_user={user};auth_pass={password};regint=60"
        sound = spoken(self, 30.0)
        phone = Baresip(self, account, sound, host="::1" if ":" in host else "127.0.0.7")
        phone.process.wait_for("registered successfully")
        phone.do("dial", f"sip:openai@{where};transport={transport}")
        phone.wait_for("CALL_ESTABLISHED")
        phone.do("hangup")
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "caller hung up")
        self.assertTrue(record["peer"].startswith("[::1]:" if ":" in host else "127.0.0."), record["peer"])

    def test_tcp(self) -> None:
        """Over TCP a phone registers, calls and hangs up."""
        self.call("tcp")

    def test_tls(self) -> None:
        """Over TLS as well."""
        self.call("tls", **certificate(self))

    def test_ipv6(self) -> None:
        """Over IPv6, audio included."""
        self.call("udp", "::1", EXTENBOT_RTP_INTERFACE="::1")
