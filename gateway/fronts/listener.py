"""A listening socket and the application behind it."""

import asyncio
import errno
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from aiohttp import web

from gateway.config.addresses import host_and_port
from gateway.config.options import Listen, SocketOptions, listen_address
from gateway.errors import UserError
from gateway.fronts.connections import Connection, Connections

#: Seconds that a connection gets in the end when nothing waits for what it does.
LINGER = 1.0
#: Connections that the kernel keeps until they are accepted.
BACKLOG = 128


@asynccontextmanager
async def listener(app: web.Application, listen: Listen, connections: Connections) -> AsyncIterator[str]:
    """Serve *app*; yields the `host:port` or `unix:/path` it got.

    Raises `UserError` for a group it cannot have, `OSError` for an address that is in use.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=LINGER)
    await runner.setup()
    server = cast("web.Server", runner.server)
    try:
        sockets = await _open(listen, lambda: Connection(server, connections))
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(connections.watch())
            try:
                yield _name(sockets) or listen_address(listen)
            finally:
                watch.cancel()
                sockets.close()
    finally:
        await runner.cleanup()


async def _open(listen: Listen, connection: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    loop, tcp = asyncio.get_running_loop(), host_and_port(listen_address(listen))
    if tcp is not None:
        return await loop.create_server(connection, *tcp, backlog=BACKLOG)
    options = SocketOptions(unix=listen.removeprefix("unix:")) if isinstance(listen, str) else listen
    return await loop.create_unix_server(connection, sock=_bound(options), backlog=BACKLOG)


def _bound(options: SocketOptions) -> socket.socket:
    """Bind a Unix socket in place of one that a killed gateway left. Nobody can connect before it listens."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(Path(options.unix))
        bound.bind(options.unix)
        if options.group is not None:
            _give(options.unix, options.group)
        if options.mode is not None:
            Path(options.unix).chmod(int(str(options.mode), 8))
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; raises `OSError` (EADDRINUSE), as a port does, for one that is in use."""
    if not path.is_socket():
        return
    if _in_use(path):
        raise OSError(errno.EADDRINUSE, f"{path} is in use; stop what listens there, or remove the file.")
    path.unlink(missing_ok=True)


def _in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, PermissionError):  # its backlog is full, or it is another user's
            return True
    return True


def _give(path: str, group: str) -> None:
    try:
        shutil.chown(path, group=group)
    except LookupError as error:
        raise UserError(
            f"There is no group {group!r} on this machine; listen.group has to name one."
        ) from error
    except PermissionError as error:
        why = f"{path} cannot be given to the group {group!r}; make the gateway's user a member of it."
        raise UserError(why) from error


def _name(server: asyncio.Server) -> str:
    """Return host and port of the first socket; "" for a Unix socket."""
    name = server.sockets[0].getsockname()
    if isinstance(name, str | bytes):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
