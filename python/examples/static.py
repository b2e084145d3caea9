"""A static proxy: relays each client to one target. usage: static.py LISTEN TARGET, such as static.py 8080 example.org:80"""

import sys

import seaprox


class Static(seaprox.Handler):
    def opened(self, connection: seaprox.Connection) -> None:
        connection.connect(sys.argv[2])  # without the method connected, the loop relays or closes

    def closed(self, connection: seaprox.Connection, end: seaprox.End) -> None:
        print(f"closed: {end.reason.word}, {end.sent} bytes sent, {end.received} received", flush=True)


with seaprox.Loop() as loop:
    listener = loop.listen(sys.argv[1], Static(), kind="static")
    print("listening on port", listener.port, flush=True)
    loop.run()
