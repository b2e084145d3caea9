"""A loop in asyncio."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Awaitable, Callable

import seaprox
import seaprox.aio
from seaprox import Connection, End
from seaprox.aio import Embedded

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


class Streams(TestCase):
    """Two nodes in one loop of asyncio."""

    def run_both(self, main: Callable[[seaprox.Loop, seaprox.Loop], Awaitable[None]]) -> None:
        async def both() -> None:
            async with Embedded(seaprox.Loop()) as here, Embedded(seaprox.Loop()) as there:
                await main(here.loop, there.loop)
                here.loop.finish()
                there.loop.finish()
                await asyncio.gather(here.finished(), there.finished())

        asyncio.run(asyncio.wait_for(both(), PATIENCE))

    def dial(self, here: seaprox.Loop, there: seaprox.Loop, **options: Any) -> seaprox.Link:
        ours, theirs = seaprox.PrivateKey(), seaprox.PrivateKey()
        server = there.serve_links("127.0.0.1:0", key=theirs, peer_key=ours.public, **options)
        return here.dial_link(server.address, key=ours, peer_key=theirs.public)

    def test_streams_of_a_link_are_readers_and_writers(self) -> None:
        size = 12_000_000

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            readers.append(reader)
            await reads.wait()
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
            writer.write_eof()

        reads, readers = asyncio.Event(), list[Any]()

        async def main(here: seaprox.Loop, there: seaprox.Loop) -> None:
            link = self.dial(here, there)
            there.set_service("upper", seaprox.aio.streams(serve))
            await seaprox.aio.up(link)
            await seaprox.aio.up(link)
            self.assertEqual(link.state, seaprox.LinkState.UP)
            reader, writer = await seaprox.aio.open_service(link, "upper")

            async def send() -> None:
                for _ in range(size // 16000):
                    writer.write(b"x" * 16000)
                    await writer.drain()
                    self.assertLess(writer.transport.get_write_buffer_size(), 100_000)
                writer.write_eof()

            sending = asyncio.create_task(send())
            # The writer is held back while nobody reads.
            while writer.transport.get_write_buffer_size() < 65_536 or not readers or readers[0]._transport.is_reading():
                await asyncio.sleep(0.001)
            waiting = len(readers[0]._buffer)
            self.assertLess(waiting, 300_000)
            # Bytes that come now would be read if reading were not paused.
            await asyncio.sleep(0.05)
            self.assertEqual((len(readers[0]._buffer), sending.done()), (waiting, False))
            reads.set()
            data = await reader.read()
            await sending
            self.assertEqual((len(data), set(data)), (size, {ord("X")}))
            writer.close()
            await writer.wait_closed()

        self.run_both(main)

    def test_a_stream_that_is_refused_or_reset_raises(self) -> None:
        async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            writer.transport.abort()

        async def main(here: seaprox.Loop, there: seaprox.Loop) -> None:
            link = self.dial(here, there)
            with self.assertRaises(seaprox.ConnectError) as raised:
                await seaprox.aio.open_service(link, "unknown")
            self.assertEqual(raised.exception.reason, seaprox.Reason.NOT_PERMITTED)
            with self.assertRaises(seaprox.ConnectError):
                await seaprox.aio.open_stream(link, "127.0.0.1:1")
            there.set_service("abort", seaprox.aio.streams(abort))
            reader, writer = await seaprox.aio.open_service(link, "abort")
            writer.write(b"x")
            with self.assertRaises(ConnectionError):
                await reader.read()

        self.run_both(main)

    def test_a_link_that_is_rejected_or_closed_raises(self) -> None:
        async def main(here: seaprox.Loop, there: seaprox.Loop) -> None:
            key, theirs = seaprox.PrivateKey(), seaprox.PrivateKey()
            server = there.serve_links("127.0.0.1:0", key=theirs, peer_key=key.public)
            link = here.dial_link(server.address, peer_key=theirs.public)
            with self.assertRaises(seaprox.ConnectError) as raised:
                await seaprox.aio.up(link)
            self.assertEqual(raised.exception.reason, seaprox.Reason.AUTH_FAILED)
            waiting = asyncio.create_task(seaprox.aio.up(link))
            await asyncio.sleep(0)
            link.close()
            with self.assertRaises(seaprox.ConnectError):
                await waiting
            self.assertEqual(here._links.waiting, {})

        self.run_both(main)

    def test_clients_of_a_listener_are_readers_and_writers(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            writer.write(line[::-1])
            writer.close()

        async def main(here: seaprox.Loop, there: seaprox.Loop) -> None:
            listener = here.listen("127.0.0.1:0", seaprox.aio.streams(serve), handshake_timeout=0.1)
            # A client may take longer than the handshake of a proxy.
            self.assertEqual(await self.ask(listener.port, 0.3), b"\ncba")
            answers = await asyncio.gather(*(self.ask(listener.port) for _ in range(20)))
            self.assertEqual(answers, [b"\ncba"] * 20)

        self.run_both(main)

    async def ask(self, port: int, seconds: float = 0) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(seconds)
        writer.write(b"abc\n")
        answer = await reader.read()
        writer.close()
        return answer
