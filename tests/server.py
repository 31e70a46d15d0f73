"""A web server on this computer that can be made to misbehave."""

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What is at an address, and what is wrong with it."""

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    tag: str | None = '"one"'
    ranges: bool = True
    """Whether it honours Range."""
    trusting: bool = False
    """Whether it honours Range without a look at If-Range."""
    length: int | None = None
    """What it says the length is, when that is a lie."""
    silent: bool = False
    """Whether it says no length at all."""
    chunked: bool = False
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next answers are cut, one after the other."""
    statuses: list[int] = field(default_factory=list)
    """What the next answers are instead, one after the other."""
    wait: threading.Event | None = None
    """What has to happen before the answer goes on after its first byte."""


class Server:
    """The pages by their paths, and the requests (path and headers) that came."""

    def __init__(self, port):
        self.port = port
        self.pages = {}
        self.requests = []

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def put(self, path, data=b"", **how):
        self.pages[path] = Page(data, **how)
        return self.url(path)

    def asked(self, path):
        """The headers of the requests for `path`, in order."""
        return [headers for asked, headers in self.requests if asked == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        page = site.pages.get(self.path) or Page(b"<html>nothing here</html>", 404)
        if page.statuses:
            page = Page(b"in trouble", page.statuses.pop(0))
        start = self.start_of(page)
        if start is not None and start >= len(page.data):
            size = {"Content-Range": f"bytes */{len(page.data)}"}
            page, start = Page(b"", 416, headers=page.headers | size, tag=page.tag), None
        self.send_response(page.status if start is None else 206)
        body = page.data[start or 0 :]
        if page.tag is not None:
            self.send_header("ETag", page.tag)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(page.data) - 1}/{len(page.data)}")
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not page.silent:
            self.send_header("Content-Length", str(len(body) if page.length is None else page.length))
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.send(page, body)

    def start_of(self, page):
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = page.trusting or self.headers.get("If-Range") == page.tag
        return int(found[1]) if found and page.ranges and unchanged and page.status == 200 else None

    def send(self, page, body):
        if page.cuts:
            body = body[: page.cuts.pop(0)]
        elif page.chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.wfile.write(body[:1])
        self.wfile.flush()
        if page.wait is not None:
            page.wait.wait()
        self.wfile.write(body[1:])


class Listener(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Say nothing: a client that hangs up is what some tests are about."""


@contextmanager
def serve():
    """Run a server for as long as the block lasts."""
    with Listener(("127.0.0.1", 0), Handler) as http:
        http.site = Server(http.server_address[1])
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield http.site
        finally:
            http.shutdown()
            thread.join()
