"""A proxy and a server of asyncio in one thread; asyncio connects the dests. usage: embedded.py LISTEN

The server tells the number of open connections to each client.
"""

import asyncio
import sys

import seaprox
import seaprox.aio


async def main() -> None:
    async with seaprox.aio.Embedded(seaprox.Loop()) as embedded:
        loop = embedded.loop
        loop.set_connector(seaprox.aio.connector(seaprox.aio.connect))
        listener = loop.serve("socks", sys.argv[1])

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{len(loop.status()['connections'])} open\n".encode())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(count, "127.0.0.1", 0)
        print("listening on port", listener.port, flush=True)
        print("counting on port", server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await embedded.finished()


asyncio.run(main())
