"""A store in a bucket, on a real S3 server: nodes share complete stages, each computed once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from safecomm.errors import StorageError, UsageError
from safecomm.storage import checksums, shared
from safecomm.storage.bucket import Bucket
from safecomm.storage.lease_records import ObjectLeaseRecords
from safecomm.storage.lock import STALE_SECONDS, HeldError, Lock
from safecomm.storage.names import LINEAGE
from safecomm.storage.store import Store, digest, lineage, local_copy

MAKE = """
import sys, time
from pathlib import Path
from safecomm.storage.store import Store

def make(out):
    print("makes", flush=True)
    (out / "one").write_text("1")
    (out / "two").write_text("2")
    time.sleep(1)

print("ready", flush=True)
sys.stdin.readline()
folder = Store.of(sys.argv[1]).obtain("stage", {"x": 1}, make)
print((folder / "two").read_text(), flush=True)
"""


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Goes to another node: with copies of its own, or none."""

    def to(node: str) -> None:
        monkeypatch.setenv(shared.CACHE, str(tmp_path / node))
        checksums._known_digest.cache_clear()

    return to


def bucket_of(url: str) -> tuple[Bucket, str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    return Bucket("s3", name), prefix


def make_weights(out: Path) -> None:
    (out / "deep").mkdir()
    (out / "deep" / "weights").write_bytes(b"weights")


def on_node(tmp_path: Path, node: str, url: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, shared.CACHE: str(tmp_path / node)}
    command = [sys.executable, "-c", MAKE, url]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_nodes_reuse_each_others_stages(bucket: str, move: Callable[[str], None]) -> None:
    made = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    move("another")
    found = Store.of(bucket).obtain("stage", {"x": 1}, pytest.fail)
    assert found != made
    assert (found / "deep" / "weights").read_bytes() == b"weights"
    assert lineage(found) == lineage(made)
    assert (found / "deep" / "weights").stat().st_mtime_ns == (made / "deep" / "weights").stat().st_mtime_ns


def test_path_from_another_node_is_fetched_before_use(bucket: str, tmp_path: Path, move: Callable[[str], None]) -> None:
    made = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    path = tmp_path / "another" / made.relative_to(tmp_path / "node") / "deep"
    assert not path.exists()
    assert (local_copy(path) / "weights").read_bytes() == b"weights"
    with pytest.raises(StorageError, match="run the sweep again"):
        local_copy(path.parents[1] / "no-such-key")
    assert local_copy(tmp_path / "nothing") == tmp_path / "nothing"


def test_incomplete_upload_is_invisible(bucket: str, move: Callable[[str], None]) -> None:
    folder = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    objects, prefix = bucket_of(bucket)
    objects.remove(f"{prefix}/store/stage/{folder.name}/{LINEAGE}")
    move("another")
    assert Store.of(bucket).find("stage", folder.name) is None
    again = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    assert objects.has(f"{prefix}/store/stage/{again.name}/{LINEAGE}")


@contextmanager
def dies_at(name: str, s3_url: str, maker: list["subprocess.Popen[str]"]) -> Iterator[str]:
    """Passes requests on to the S3 server, but kills the maker when it writes an object, which is not written."""
    host, _, port = s3_url.removeprefix("http://").partition(":")

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if self.command == "PUT" and self.path.endswith(name):
                maker[0].kill()
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server = HTTPConnection(host, int(port))
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                    self.send_header(key, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        thread = threading.Thread(target=door.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.server_port}"
        finally:
            door.shutdown()
            thread.join()


@pytest.mark.parametrize("moment", ["two", LINEAGE])
def test_killed_upload_is_invisible(
    bucket: str, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    maker: list[subprocess.Popen[str]] = []
    with dies_at(moment, s3_url, maker) as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL", door)
        maker.append(on_node(tmp_path, "dying", bucket))
        said, _ = maker[0].communicate("\n", timeout=120)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    assert said == "makes\n" and maker[0].returncode == -signal.SIGKILL
    objects, prefix = bucket_of(bucket)
    key = digest({"x": 1})
    there = {name.rpartition("/")[2] for name in objects.names(f"{prefix}/store/stage/{key}")}
    assert there == {"one", "two"} if moment == LINEAGE else there <= {"one"}
    assert Store.of(bucket).find("stage", key) is None
    calls: list[Path] = []

    def make(out: Path) -> None:
        calls.append(out)
        make_weights(out)

    Store.of(bucket).obtain("stage", {"x": 1}, make)  # its lock is that of a dead process
    assert len(calls) == 1


@pytest.mark.parametrize("harm", [b"weightz", b"cut"])
def test_damaged_stage_in_the_bucket_is_recomputed(
    bucket: str, move: Callable[[str], None], harm: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    objects, prefix = bucket_of(bucket)
    objects.write(f"{prefix}/store/stage/{folder.name}/deep/weights", harm)
    move("another")
    again = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    assert (again / "deep" / "weights").read_bytes() == b"weights"
    assert "damaged" in caplog.text
    move("third")
    assert Store.of(bucket).obtain("stage", {"x": 1}, pytest.fail)


def test_damaged_copy_is_quarantined_and_refetched(bucket: str, move: Callable[[str], None]) -> None:
    folder = Store.of(bucket).obtain("stage", {"x": 1}, make_weights)
    (folder / "deep" / "weights").write_bytes(b"weightz")
    move("node")
    assert Store.of(bucket).obtain("stage", {"x": 1}, pytest.fail) == folder
    assert (folder / "deep" / "weights").read_bytes() == b"weights"


def test_concurrent_nodes_compute_a_stage_once(bucket: str, tmp_path: Path) -> None:
    nodes = [on_node(tmp_path, f"node-{number}", bucket) for number in range(4)]
    for node in nodes:
        assert node.stdin
        node.stdin.write("\n")
        node.stdin.flush()
    said = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0] * 4, said
    assert sum(out.count("makes") for out, _ in said) == 1
    assert all(out.endswith("2\n") for out, _ in said)


def of_elsewhere(url: str, silent: float, monkeypatch: pytest.MonkeyPatch) -> ObjectLeaseRecords:
    """Lease records of a lock that a process on another machine took and has not renewed for some seconds."""
    objects, prefix = bucket_of(url)
    records = ObjectLeaseRecords(objects, f"{prefix}/lock")
    Lock(records)
    found = records.read(1)
    assert found
    records.touch(1, json.dumps(json.loads(found[0]) | {"host": "elsewhere"}))
    now = ObjectLeaseRecords.now
    monkeypatch.setattr(ObjectLeaseRecords, "now", lambda self: now(self) + silent)
    return records


def test_renewed_lock_of_another_machine_holds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = of_elsewhere(bucket, STALE_SECONDS / 2, monkeypatch)
    with pytest.raises(HeldError, match="on elsewhere"):
        Lock(records)


def test_expired_lock_is_taken_over_by_one(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = of_elsewhere(bucket, 2 * STALE_SECONDS, monkeypatch)
    first = Lock(records)
    assert "was silent" in first.taken_over
    first.heartbeat()
    assert not first.is_lost
    create = ObjectLeaseRecords.create
    winners: list[Lock] = []

    def late(self: ObjectLeaseRecords, number: int, text: str) -> bool:
        """Another takes it over between one's look and its try."""
        monkeypatch.setattr(ObjectLeaseRecords, "create", create)
        winners.append(Lock(records))
        return create(self, number, text)

    monkeypatch.setattr(ObjectLeaseRecords, "create", late)
    monkeypatch.setattr("safecomm.storage.owner.Owner.is_dead", True)
    with pytest.raises(HeldError):
        Lock(records)
    winners[0].heartbeat()
    assert not winners[0].is_lost
    first.heartbeat()
    assert first.is_lost


def test_missing_bucket_is_reported_with_the_setting(bucket: str) -> None:
    with pytest.raises(StorageError, match="storage: s3://no-such-bucket: the bucket does not exist") as error:
        Store.of("s3://no-such-bucket/runs").obtain("stage", {}, make_weights)
    assert "\n" not in str(error.value)


def test_unreachable_server_is_reported_without_the_key(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    shared._bucket.cache_clear()
    monkeypatch.setattr("safecomm.storage.bucket.RETRIES", {"max_retries": 0})
    with pytest.raises(StorageError, match=r"storage: s3://.*AWS_ENDPOINT_URL") as error:
        Store.of(bucket).find("stage", "key")
    assert "\n" not in str(error.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def test_missing_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # of a machine that has no role either
    monkeypatch.setattr("safecomm.storage.bucket.RETRIES", {"max_retries": 0})
    with pytest.raises(StorageError, match=r"storage: s3://.*no credentials were found; set AWS_ACCESS_KEY_ID"):
        Store.of(bucket).find("stage", "key")


def test_files_of_any_size_arrive_intact(bucket: str, move: Callable[[str], None]) -> None:
    sizes = {"empty": 0, "parts": 17 << 20}

    def make(out: Path) -> None:
        for name, size in sizes.items():
            (out / name).write_bytes(os.urandom(size))

    made = Store.of(bucket).obtain("stage", {}, make)
    move("another")
    found = Store.of(bucket).obtain("stage", {}, pytest.fail)
    assert all((found / name).read_bytes() == (made / name).read_bytes() for name in sizes)


@pytest.mark.parametrize(
    "storage", ["http://host/x", "s3://", "az://bucket/x", "s3://bucket/../x", "s3://key:word@bucket/x"]
)
def test_invalid_bucket_urls_are_rejected(storage: str) -> None:
    with pytest.raises(UsageError, match="storage: must be a folder, s3://BUCKET/PREFIX") as error:
        Store.of(storage)
    assert "word" not in str(error.value)


def test_folders_do_not_need_the_bucket_package(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from safecomm.storage.store import Store\n"
        "Store.of(sys.argv[1]).obtain('stage', {}, lambda out: None)\n"
        "from safecomm.errors import UsageError\n"
        "try: Store.of('s3://bucket/x').obtain('stage', {}, lambda out: None)\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert "safecomm[bucket]" in done.stdout, done.stderr
