"""How every engine takes requests: a local socket, a thread for each connection."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path


def take_requests(path: str, answer: Callable[[socket.socket], None]) -> None:
    """Listen until the process ends. The socket appears when it can be connected to: whoever waits for it may ask."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path + ".new")
    listener.listen(256)
    Path(path + ".new").rename(path)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()
