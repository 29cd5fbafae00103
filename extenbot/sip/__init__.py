"""SIP as a language and a set of rules: pure, RFC 3261 and its extensions; SDP is opaque bytes here."""
