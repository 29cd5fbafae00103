"""A real phone (baresip) registers and calls over TCP, TLS and IPv6."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Service, free_port, new_folder
from tests.real.speech import spoken


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
        sound = spoken(Path(self.mktemp()).with_suffix(".wav"), 30.0)
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
        folder = new_folder(self)
        made = trustme.CA().issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(str(folder / "key.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / "chain.pem"))
        self.call("tls", EXTENBOT_SIP_CERTIFICATE=str(folder / "chain.pem"), EXTENBOT_SIP_KEY=str(folder / "key.pem"))

    def test_ipv6(self) -> None:
        """Over IPv6, audio included."""
        self.call("udp", "::1", EXTENBOT_RTP_INTERFACE="::1")
