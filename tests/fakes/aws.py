"""A local AWS (moto) in its own process, with one IAM user."""

import html
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlencode
from urllib.request import Request, urlopen

import boto3

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Aws:
    """A running AWS: its address and its IAM."""

    url: str
    iam: Any

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes a server use this AWS."""
        return {"AWS_ENDPOINT_URL": self.url, **KEYS}

    def inline_policy(self, user: str, policy: str) -> str | None:
        """Return the inline policy of a user, every byte as AWS has it, or None."""
        form = {"Action": "GetUserPolicy", "Version": "2010-05-08", "UserName": user, "PolicyName": policy}
        request = Request(
            self.url,
            urlencode(form).encode(),
            {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request"},
        )
        try:
            with urlopen(request) as answer:
                document = re.search(
                    r"<PolicyDocument>(.*?)</PolicyDocument>", answer.read().decode(), re.DOTALL
                )
        except HTTPError as error:
            with error:
                assert error.code == 404
            return None
        return html.unescape(unquote(document[1]))


@contextmanager
def local_aws(user: str) -> Iterator[Aws]:
    """Run an AWS on a free port while the context is open."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        port = _port(process)
        url = f"http://127.0.0.1:{port}"
        iam = boto3.client(
            "iam", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip
        iam.create_user(UserName=user)
        yield Aws(url, iam)
        iam.close()
    finally:
        process.kill()
        process.communicate()


def _port(process: subprocess.Popen) -> int:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
            # Its output must be read, or its pipe fills and it blocks.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return int(match[1])
    raise AssertionError("".join(seen))
