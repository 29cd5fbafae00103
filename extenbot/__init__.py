"""extenbot: an AI voice colleague for any SIP PBX, from one process."""

__version__ = "0.1.0"
