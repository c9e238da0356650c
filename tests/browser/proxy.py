"""A slow connection: a TCP proxy that holds back all bytes of both directions for a while.

Chromium's own throttling (`Network.emulateNetworkConditions`) does not delay WebSocket frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading


class SlowProxy:
    """Pass connections on to a port of this machine, each chunk `delay_s` later, in order.

    Thread safety: runs an event loop on a thread of its own; `delay_s` may be changed at any time.

    Parameters
    ----------
    port : int
        Where to pass the connections on to.
    delay_s : float
        Time that each direction takes; a round trip takes twice as long.

    Attributes
    ----------
    url : str
        Where it listens.
    """

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._pipes: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """End all connections and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in self._pipes:
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        self._pipes.discard(task)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read at once and write later, so that a delay is none of the throughput's."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write_later() -> None:
            while True:
                due, data = await held.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        later = asyncio.create_task(write_later())
        try:
            while True:
                data = await reader.read(2**16)
                held.put_nowait((self._loop.time() + self.delay_s, data))
                if not data:
                    break
            await later
        finally:
            later.cancel()
            writer.close()
