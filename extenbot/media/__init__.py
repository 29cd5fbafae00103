"""RTP audio without sockets: SDP, RTP, G.711, jitter, playout."""
