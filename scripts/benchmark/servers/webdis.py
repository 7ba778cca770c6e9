"""webdis, an HTTP interface to Redis in C."""

import json
import socket
import time
from pathlib import Path

from scripts.benchmark import tools
from scripts.benchmark.load.connection import Address, Connection
from scripts.benchmark.load.requests import request
from scripts.lib.program import Failed, Program

_TIMEOUT = 5.0  # seconds


class Webdis(Program):
    """webdis with two threads in front of a Redis."""

    def __init__(self, home: Path, redis_socket: Path) -> None:
        home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: Address = ("127.0.0.1", free.getsockname()[1])
        settings = {
            "redis_host": str(redis_socket),
            "http_host": self.address[0],
            "http_port": self.address[1],
            "threads": 2,
            "pool_size": 20,
            "daemonize": False,
            "verbosity": 1,
            "logfile": str(home / "log"),
        }
        path = home / "webdis.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        super().__init__(home, [tools.path("webdis"), str(path)])

    def wait_for(self, path: str, body: bytes) -> None:
        """Wait until GET `path` answers `body`: webdis does not print when it is ready.

        Raises:
            Failed: it did not within five seconds.
        """
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            try:
                connection = Connection(self.address)
                response = connection.send(request("GET", path, api_key=""))
                connection.close()
                if response.body == body:
                    return
            except (OSError, Failed):
                pass
            time.sleep(0.05)
        raise Failed("webdis did not answer")
