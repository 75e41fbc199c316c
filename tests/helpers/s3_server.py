"""An S3-compatible server in this process (moto's), with buckets and, when asked, failures."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from dpbatch.location import RemotePath, parse_location
from dpbatch.storage import store


@dataclass
class S3Server:
    """address: for AWS_ENDPOINT_URL. fails: (method, path) -> whether to answer 503 instead."""

    address: str
    fails: Callable[[str, str], bool] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def bucket(self) -> str:
        """The URL of a new bucket."""
        import fsspec

        name = f"bucket-{secrets.token_hex(4)}"  # moto keeps one set of them a process
        fsspec.filesystem("s3").mkdir(name)
        return f"s3://{name}"

    def fail_once(self, method: str, part: str) -> None:
        """The next request of this method whose path has `part` in it fails."""
        self.fails = lambda asked, path: asked == method and part in path and not self.failed

    def forget(self) -> None:
        """No failures from here on, and none counted."""
        self.fails = None
        self.asked.clear()
        self.failed.clear()


@contextmanager
def serving() -> Iterator[S3Server]:
    """A server, and the environment that leads there."""
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server("")
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.asked.append(request)
        if server.fails is not None and server.fails(*request):
            server.failed.append(request)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return moto(environ, start_response)

    http = make_server("127.0.0.1", 0, application, threaded=True)
    server.address = f"http://127.0.0.1:{http.port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
    http.shutdown()
    thread.join()


def remote(url: str) -> RemotePath:
    """The location of a URL."""
    location = parse_location(url)
    assert isinstance(location, RemotePath)
    return location


def put_folder(folder: Path, url: str) -> None:
    """Stores all files of a local folder below a URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(remote(url) / path.relative_to(folder).as_posix(), path.read_bytes())


def stored(url: str) -> dict[str, bytes]:
    """Every file below a URL, but for the journal's folder, by its path below it."""
    root = remote(url)
    files = {path.relative_to(root).as_posix(): path for path in store.files_below(root)}
    return {
        name: store.read(path) for name, path in files.items() if not name.startswith(".dpbatch/")
    }
