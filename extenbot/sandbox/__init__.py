"""A Realtime-compatible voice server on loopback that needs no key."""
