"""A loop in asyncio."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import seaprox
import seaprox.aio
from seaprox import Connection, End

from .kit import PATIENCE, TestCase


class Aio(TestCase):
    def run_all(self, main: Any) -> Any:
        return asyncio.run(asyncio.wait_for(main, PATIENCE))

    async def exchange(self, port: int, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    def test_both_loops_serve_in_one_thread(self) -> None:
        target = self.capitals()

        async def main() -> None:
            async with seaprox.aio.Embedded(seaprox.Loop()) as embedded:
                listener = embedded.loop.serve("static", "127.0.0.1:0", to=target)
                answers = await asyncio.gather(*(self.exchange(listener.port, b"word") for _ in range(20)))
                self.assertEqual(answers, [b"WORD"] * 20)
                timer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                embedded.loop.call_later(0.02, timer.set_result, "timer")
                self.assertEqual(await timer, "timer")
                # Another thread finishes it.
                await asyncio.to_thread(embedded.loop.finish)
                await embedded.finished()
            self.assertTrue(embedded.loop.is_closed)

        self.run_all(main())

    def test_what_asyncio_does_with_the_loop_is_seen_at_once(self) -> None:
        class Echo(seaprox.Handler):
            def __init__(self) -> None:
                self.over: asyncio.Future[End] = asyncio.get_running_loop().create_future()

            def readable(self, side: seaprox.Side, data: bytes) -> None:
                side.send(data)

            def closed(self, connection: Connection, end: End) -> None:
                self.over.set_result(end)

        async def main() -> None:
            async with seaprox.aio.Embedded(seaprox.Loop()) as embedded:
                # The loop waits without a timeout when it is used.
                await asyncio.sleep(0.01)
                ours, theirs = socket.socketpair()
                handler = Echo()
                connection = embedded.loop.adopt(theirs, handler)
                with ours:
                    ours.setblocking(False)
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(ours, b"ping")
                    self.assertEqual(await loop.sock_recv(ours, 100), b"ping")
                    connection.close()
                    self.assertEqual((await handler.over).reason, seaprox.Reason.KILLED)

        self.run_all(main())

    def test_coroutines_connect_the_dests(self) -> None:
        host, port = self.capitals().split(":")

        async def main() -> None:
            asked: list[tuple[str, int]] = []

            async def connect(name: str, number: int) -> socket.socket:
                asked.append((name, number))
                return await seaprox.aio.connect(host, int(port))

            async with seaprox.aio.Embedded(seaprox.Loop()) as embedded:
                embedded.loop.set_connector(seaprox.aio.connector(connect))
                listener = embedded.loop.serve("static", "127.0.0.1:0", to="made.up:7")
                self.assertEqual(await self.exchange(listener.port, b"word"), b"WORD")
                embedded.loop.set_connector(seaprox.aio.connector(lambda *_: seaprox.aio.connect("127.0.0.1", closed)))
                self.assertEqual(await self.exchange(listener.port, b""), b"")
            self.assertEqual(asked, [("made.up", 7)])

        closed = self.closed_port()
        self.run_all(main())

    def test_what_ends_the_turn_is_raised(self) -> None:
        async def main() -> None:
            async with seaprox.aio.Embedded(seaprox.Loop()) as embedded:
                embedded.loop.post(self.end)
                await embedded.finished()

        with self.assertRaises(SystemExit):
            self.run_all(main())

    def end(self) -> None:
        raise SystemExit(7)
