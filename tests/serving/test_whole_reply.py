"""What leaves a replica's socket, send by send: a whole reply at once, and a stream as it comes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mlops_assets.serving import whole_reply


@dataclass
class Replica:
    """A server on a port of its own, and what it has sent."""

    port: int
    sent: list[bytes] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


@pytest.fixture
async def replica(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])
    whole_reply.use()
    listening = socket.create_server(("127.0.0.1", 0))
    replica = Replica(listening.getsockname()[1])
    really_send = socket.socket.send

    def send(self: socket.socket, data: bytes, *flags: int) -> int:
        if self.getsockname()[1] == replica.port:
            replica.sent.append(bytes(data))
        return really_send(self, data, *flags)

    async def stream(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            await replica.more.wait()
            yield b"late"

        return StreamingResponse(body(), media_type="text/plain")

    app = Starlette(routes=[Route("/echo", echo, methods=["POST", "GET"]), Route("/stream", stream)])
    server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", lifespan="off", log_level="warning"))
    monkeypatch.setattr(socket.socket, "send", send)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield replica
    server.should_exit = True
    await serving


@asynccontextmanager
async def connected(replica: Replica) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /echo HTTP/1.1", "Host: replica", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.anyio
async def test_each_reply_of_a_connection_leaves_in_one_piece(replica: Replica) -> None:
    async with connected(replica) as (reader, writer):
        for body in (b"first", b"second", b"x" * 100_000):
            writer.write(post(body))
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
    assert [sent.split(b"\r\n\r\n")[1][:6] for sent in replica.sent[:3]] == [b"first", b"second", b"xxxxxx"]


@pytest.mark.anyio
async def test_the_head_of_a_stream_does_not_wait_for_a_body_that_takes_its_time(replica: Replica) -> None:
    async with connected(replica) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.1\r\nHost: replica\r\n\r\n")
        assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
        replica.more.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"


@pytest.mark.anyio
async def test_a_reply_without_a_body_is_not_held(replica: Replica) -> None:
    async with connected(replica) as (reader, writer):
        writer.write(b"HEAD /echo HTTP/1.1\r\nHost: replica\r\n\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")


@pytest.mark.anyio
async def test_a_reply_that_closes_the_connection_is_sent_before(replica: Replica) -> None:
    async with connected(replica) as (reader, writer):
        writer.write(b"HEAD /echo HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n")
        assert b"connection: close" in (await reader.read()).lower()


@pytest.mark.anyio
async def test_a_client_that_asks_whether_to_go_on_is_told_so_before_it_does(replica: Replica) -> None:
    async with connected(replica) as (reader, writer):
        asked, body = post(b"big", "Expect: 100-continue").split(b"big")[0], b"big"
        writer.write(asked)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(3) == b"big"
