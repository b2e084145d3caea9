"""A SOCKS proxy that ends when its standard input does. usage: socks.py LISTEN [DENY...], such as socks.py 1080 '*:25'"""

import os
import sys

import seaprox


def on_event(event: seaprox.Event) -> None:
    if event.kind == seaprox.EventKind.CONNECTED and event.connection:
        print("connected:", event.connection.description, flush=True)
    elif event.end:
        print("ended:", event.end.reason.word, flush=True)


def on_input(fd: int, events: seaprox.PollEvent) -> None:
    if not os.read(fd, 4096):
        watch.close()
        loop.finish(grace=1)


with seaprox.Loop(max_num_connections=1000) as loop:
    listener = loop.serve("socks", sys.argv[1], deny=sys.argv[2:])
    print("listening on port", listener.port, flush=True)
    loop.set_event_handler(on_event)
    watch = loop.watch(0, seaprox.PollEvent.READABLE, on_input)
    loop.run()
