"""Unix sockets: mode, group, stale sockets, and the errors; TCP connections: keepalive."""

import asyncio
import errno
import grp
import os
import socket
import stat
import sys

import aiohttp
import pytest
from aiohttp import web

from aiohttp_listener import open_listener
from gateway.app.config_file import read_listen
from gateway.config.options import SocketOptions
from gateway.errors import UserError
from gateway.fronts.connection_limits import Connections
from gateway.fronts.listener import open_sockets

CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""


def serving(listen):
    return open_listener(web.Application(), listen, Connections("agents", 9))


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_socket_gets_its_mode_and_its_group(tmp_path):
    path, group = tmp_path / "agents.sock", grp.getgrgid(os.getgid()).gr_name
    async with serving(SocketOptions(unix=str(path), mode="0660", group=group)) as at:
        assert at == f"unix:{path}"
        assert (mode_of(path), path.stat().st_gid) == (0o660, os.getgid())
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            async with http.get("http://localhost/") as answer:
                assert answer.status == 404


async def test_a_socket_without_a_mode_follows_the_umask_and_replaces_a_stale_one(tmp_path):
    path = tmp_path / "agents.sock"
    for _ in range(2):
        async with serving(f"unix:{path}"):
            assert mode_of(path) & 0o022 == 0
        assert path.is_socket()


async def test_a_socket_in_use_is_not_replaced(tmp_path):
    path = tmp_path / "agents.sock"
    async with serving(f"unix:{path}"):
        with pytest.raises(OSError, match=f"{path} is in use") as refused:
            async with serving(f"unix:{path}"):
                pass
        assert refused.value.errno == errno.EADDRINUSE
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            async with http.get("http://localhost/") as answer:
                assert answer.status == 404


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "gid", "connects"), [("0660", 65534, True), ("0660", 12345, False), (None, 65534, False)]
)
async def test_another_user_connects_if_mode_and_group_allow_it(mode, gid, connects, tmp_path):
    path = tmp_path / "agents.sock"
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    async with serving(SocketOptions(unix=str(path), mode=mode, group=grp.getgrgid(65534).gr_name)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CONNECT, str(path), str(gid), stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
    assert (process.returncode == 0) == connects, said.decode()


async def test_an_unknown_group_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^This machine has no group 'nosuchgroup'"):
        async with serving(SocketOptions(unix=str(tmp_path / "a.sock"), group="nosuchgroup")):
            pass


def test_a_command_finds_a_socket_of_either_form(tmp_path):
    file = tmp_path / "okayed.yaml"
    for written in ("unix:/run/a.sock", "{unix: /run/a.sock, mode: '0660'}"):
        file.write_text(f"listen: {written}\n")
        file.chmod(0o600)
        assert read_listen(file, {}) == "unix:/run/a.sock"


async def test_the_kernel_finds_silent_peers_that_are_gone():
    accepted = asyncio.get_running_loop().create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport.get_extra_info("socket"))

    async with open_sockets("127.0.0.1:0", Connections("agents", 9), Accepting) as at:
        _, writer = await asyncio.open_connection(*at.split(":"))
        assert (await accepted).getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        writer.close()
