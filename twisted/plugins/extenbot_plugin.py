"""Makes ``twistd extenbot`` known. It names a module and imports none of ours, so `--reactor` keeps working."""

from twisted.application.service import ServiceMaker

extenbot = ServiceMaker(
    "extenbot",
    "extenbot.tap",
    "An AI voice colleague for any SIP PBX: SIP, RTP, voice models, account pages.",
    "extenbot",
)
