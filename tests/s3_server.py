"""An S3 server on loopback: moto, which supports conditional writes."""

import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError

from ports import free_port

KEY = "not-a-real-s3-key-0123456789abcdef01234567"


@contextmanager
def s3_server() -> Iterator[str]:
    """Yields the server's address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert server.poll() is None and time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def access(url: str) -> dict[str, str]:
    """Returns the environment in which the server's buckets can be used."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_REGION": "us-east-1",
    }


def new_bucket(url: str) -> str:
    """Makes a bucket; returns its name."""
    name = f"bucket-{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")).close()
    return name


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/moto-api/").close()
    except (URLError, ConnectionError):
        return False
    return True
