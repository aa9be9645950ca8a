"""`ownerd run`: the server and the poller under one parent, for a laptop, a container, the demo."""

from __future__ import annotations

import asyncio

from config.settings import Settings
from daemon import logs
from daemon.notify import notify
from daemon.processes import keep_memory_private
from daemon.sockets import listening_on
from daemon.supervised import Supervised, supervise


def run(settings: Settings) -> int:
    """Run server and poller until SIGTERM or SIGINT."""
    keep_memory_private()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    # Held here, it waits for the next server when one ends: who asks meanwhile waits with it, and is answered.
    with listening_on(settings) as listening:
        # The poller goes first: it makes the database that the server reads.
        processes = [Supervised("poll", settings), Supervised("serve", settings, listening.fileno())]
        return asyncio.run(supervise(processes, begun=lambda: notify("READY=1")))
