"""A listening socket: TCP or Unix."""

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.config.addresses import parse_host_and_port
from gateway.config.options import Listen, SocketOptions, listen_address
from gateway.errors import UserError
from gateway.fronts.connection_limits import Connections

#: Seconds that open connections get at shutdown.
CLOSE_SECONDS = 1.0
#: The most connections that wait in the kernel to be accepted. It drops any others, which costs their clients a second.
BACKLOG = 4096


@asynccontextmanager
async def open_sockets(
    listen: Listen, connections: Connections, protocol: Callable[[], asyncio.Protocol]
) -> AsyncIterator[str]:
    """Serve each connection by a *protocol*; yields the address as `host:port` or `unix:/path`.

    Raises `UserError` if the socket's group cannot be set, `OSError` if the address cannot be used.
    """
    sockets = await _open_server(listen, protocol)
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(connections.watch())
        try:
            yield _socket_name(sockets) or listen_address(listen)
        finally:
            watch.cancel()
            sockets.close()


async def _open_server(listen: Listen, connection: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    loop, tcp = asyncio.get_running_loop(), parse_host_and_port(listen_address(listen))
    if tcp is not None:
        return await _listen_tcp(tcp, connection)
    options = SocketOptions(unix=listen.removeprefix("unix:")) if isinstance(listen, str) else listen
    return await loop.create_unix_server(connection, sock=_bind_unix_socket(options), backlog=BACKLOG)


async def _listen_tcp(address: tuple[str, int], connection: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Listen on a host and port; raises `OSError` with a sentence for the operator."""
    try:
        server = await asyncio.get_running_loop().create_server(
            connection, *address, backlog=BACKLOG, start_serving=False
        )
        for (
            listening
        ) in server.sockets:  # inherited by each connection: the kernel finds silent peers that are gone
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await server.start_serving()
    except OSError as error:
        where = ":".join(map(str, address))
        if error.errno == errno.EADDRINUSE:
            why = f"{where} is in use; stop the program that listens there, or choose another port."
        else:
            why = f"The gateway cannot listen on {where}: {os.strerror(error.errno or 0)}."
        raise OSError(error.errno, why) from error
    return server


def _bind_unix_socket(options: SocketOptions) -> socket.socket:
    """Bind a Unix socket, and set its group and mode before it listens. Replaces a stale socket of a killed gateway."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(Path(options.unix))
        bound.bind(options.unix)
        if options.group is not None:
            _set_group(options.unix, options.group)
        if options.mode is not None:
            Path(options.unix).chmod(int(str(options.mode), 8))
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path) -> None:
    """Remove a socket without a listener; raises `OSError` (EADDRINUSE) if it has one."""
    if not path.is_socket():
        return
    if _is_in_use(path):
        raise OSError(
            errno.EADDRINUSE, f"{path} is in use; stop the process that listens there, or remove the file."
        )
    path.unlink(missing_ok=True)


def _is_in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, PermissionError):  # the backlog is full, or the socket is another user's
            return True
    return True


def _set_group(path: str, group: str) -> None:
    try:
        shutil.chown(path, group=group)
    except LookupError as error:
        raise UserError(
            f"This machine has no group {group!r}; set listen.group to an existing group."
        ) from error
    except PermissionError as error:
        why = f"The group of {path} cannot be set to {group!r}; make the gateway's user a member of it."
        raise UserError(why) from error


def _socket_name(server: asyncio.Server) -> str:
    """Return `host:port` of the first socket; "" for a Unix socket."""
    name = server.sockets[0].getsockname()
    if isinstance(name, str | bytes):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
