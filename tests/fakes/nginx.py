"""nginx with its default settings in front of one server."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest

from hang import HANG
from process import free_ports

CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {upstream}; }}
  }}
}}
"""
#: Debian's folder for nginx, which is not on every PATH.
PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"


@asynccontextmanager
async def nginx(upstream, folder):
    """Run nginx in front of *upstream*; yields its address, and skips the test if nginx is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path=PLACES)
    if program is None:
        pytest.skip("nginx is not installed; apt-get install nginx-light")
    [port] = free_ports(1)
    file = folder / "nginx.conf"
    file.write_text(CONFIG.format(folder=folder, port=port, upstream=upstream))
    process = await asyncio.create_subprocess_exec(program, "-c", str(file), "-e", str(folder / "error.log"))
    try:
        async with asyncio.timeout(HANG):
            while not await _listens(port):
                assert process.returncode is None, (folder / "error.log").read_text()
                await asyncio.sleep(0.02)  # no other event to wait for: another process starts
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _listens(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
