"""Tells systemd what the server does (man 3 sd_notify), for units with `Type=notify` or `Type=notify-reload`."""

import logging
import os
import socket
import time
from collections.abc import MutableMapping

logger = logging.getLogger(__name__)

#: Seconds to wait for systemd to take a message.
_TIMEOUT = 1.0


class Notifier:
    """Sends the server's state, each only once in a row, to the socket in NOTIFY_SOCKET; without one it does nothing."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Removes the variable: to workers and Redis, systemd would not listen."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._state = ""

    def ready(self) -> None:
        """The server accepts connections, and any reload has ended."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The server has been asked to reload its settings."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The server accepts no more connections."""
        self._send("STOPPING=1")

    def _send(self, state: str, *more: str) -> None:
        if not self._address or state == self._state:
            return
        self._state = state
        # A leading @ stands for the null byte of an abstract socket.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_TIMEOUT)
                sender.sendto("\n".join([state, *more]).encode(), address)
        except OSError as error:
            logger.warning("cannot tell systemd %s: %s", state, error)
