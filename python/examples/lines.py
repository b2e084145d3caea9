"""A front end of one's own: a client sends a line with a target, and is told "ok" or the reason. usage: lines.py LISTEN"""

import sys

import seaprox
from seaprox import Connection, ConnectError, Reason, Side


class Lines(seaprox.Handler):
    def readable(self, side: Side, data: bytes) -> int:
        line, found, _ = data.partition(b"\n")
        connection = side.connection
        if not found or connection is None:
            return 0  # the rest of the line is to come
        try:
            connection.connect(line.decode())
        except ValueError:
            side.send(b"no target\n")
            connection.close_after_flush(Reason.PROTOCOL_ERROR)
        return len(line) + 1  # what stands behind the line is relayed

    def connected(self, connection: Connection, error: ConnectError | None) -> None:
        if connection.source:
            connection.source.send(f"{error.reason.word if error else 'ok'}\n".encode())
        if error:
            connection.close_after_flush(error.reason)
        else:
            connection.relay()


with seaprox.Loop() as loop:
    listener = loop.listen(sys.argv[1], Lines, kind="lines")
    print("listening on port", listener.port, flush=True)
    loop.run()
