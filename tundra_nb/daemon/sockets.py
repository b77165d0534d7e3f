"""WebSockets of the daemon: uvicorn's protocol, whose pings follow our rule and whose end says how it came."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tundra_nb.runtime.ptys.heartbeat import Heartbeat

MAX_MESSAGE_BYTES = 1 << 20
"""Largest message of a viewer: a larger one is closed with 1009."""
PART_BYTES = 16 * 1024
"""So much is read in one turn of the loop: of the tiniest frames some 2,700, which take about two milliseconds."""
NO_PONG = 1011
ABNORMAL = 1006
GOING_AWAY, STOPPING = 1001, "the daemon stops"


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket with our heartbeat. `ping_seconds` and `pong_seconds` are set by `socket_class`."""

    ping_seconds: float
    pong_seconds: float
    _heart: Heartbeat | None = None
    _unread = b""
    """What came at once and waits for later turns of the loop."""

    def data_received(self, data: bytes) -> None:
        if not self._unread and len(data) <= PART_BYTES:
            super().data_received(data)
            return
        if not self._unread:
            self.loop.call_soon(self._read_part)
        self._unread += data
        self.transport.pause_reading()  # no more meanwhile, nor the end of the connection

    def _read_part(self) -> None:
        part, self._unread = self._unread[:PART_BYTES], self._unread[PART_BYTES:]
        super().data_received(part)
        if self.transport.is_closing():
            self._unread = b""
        elif self._unread:
            self.loop.call_soon(self._read_part)
        elif not self.read_paused:
            self.transport.resume_reading()

    def start_keepalive(self) -> None:
        self._heart = Heartbeat(self.ping_seconds, self.pong_seconds, self.loop.time())
        self._wait()

    def handle_pong(self, event: Any) -> None:
        if self._heart is not None and bytes(event.data) == self.pending_ping_payload:
            self._heart.heard(self.loop.time())
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn says 1005 for every end without a closing frame, as if the peer had said goodbye without a word
        if self.handshake_complete and not self.disconnected and self.conn.close_rcvd is None and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": ABNORMAL})
        super().connection_lost(exc)

    def shutdown(self) -> None:
        # uvicorn says 1012, a restart, when it comes before the viewer's own session, which says 1001
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY, "reason": STOPPING})
            self.conn.send_close(GOING_AWAY, STOPPING)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    def keepalive_timeout(self) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": NO_PONG, "reason": "no pong"})
        super().keepalive_timeout()
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()  # nobody reads what is still to be written

    def _wait(self) -> None:
        assert self._heart is not None
        if self.ping_timer is not None:
            self.ping_timer.cancel()
        self.ping_timer = self.loop.call_at(self._heart.next_at, self._beat)

    def _beat(self) -> None:
        self.ping_timer = None
        if self._heart is None or self.close_sent or self.transport.is_closing():
            return
        todo = self._heart.due(self.loop.time(), is_full=not self.writable.is_set(), is_deaf=self.read_paused)
        if todo == "dead":
            self.keepalive_timeout()
            return
        if todo == "ping":
            self.pending_ping_payload = self.loop.time().hex().encode()[:64]
            self.conn.send_ping(self.pending_ping_payload)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self._wait()


def socket_class(ping_seconds: float, pong_seconds: float) -> type[Socket]:
    """The protocol, with these seconds."""
    return type("TimedSocket", (Socket,), {"ping_seconds": ping_seconds, "pong_seconds": pong_seconds})
