"""What `twistd extenbot` needs: its options, the service, and the reactor it runs best on."""

from __future__ import annotations

import sys


def install_reactor() -> None:
    """Install the asyncio reactor over uvloop, unless a reactor is there already (`twistd --reactor`).

    asyncio libraries (the MCP SDK) then share the loop. Without uvloop (PyPy, Windows) plain asyncio serves.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    import asyncio

    from twisted.internet import asyncioreactor

    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    # Otherwise what starts before the loop runs is scheduled on another loop and hangs without a word.
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
