"""The only sockets: SIP over UDP, RTP port pairs, websockets, webhooks."""
