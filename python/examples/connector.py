"""A SOCKS proxy whose dests are connected by threads of this program. usage: connector.py LISTEN"""

import socket
import sys

import seaprox


def connect(host: str, port: int) -> socket.socket:
    if host == "forbidden.example":
        raise PermissionError("by this program")
    return socket.create_connection((host, port), timeout=5)  # what it raises becomes the reason


with seaprox.threaded(connect, threads=8) as connector, seaprox.Loop() as loop:
    loop.set_connector(connector)
    listener = loop.serve("socks", sys.argv[1])
    print("listening on port", listener.port, flush=True)
    loop.run()
