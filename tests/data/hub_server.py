"""A stand-in for the Hugging Face hub: folders `owner/name` of a root, by as much of its API as `datasets` asks for."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def send(self, code: int, body: bytes = b"", **headers: str):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: object):
        self.send(200, json.dumps(value).encode(), Content_Type="application/json")

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        parts = parts[1:] if parts[0] == "api" else ["resolve", *parts]
        if parts[0] == "datasets":
            self.describe("/".join(parts[1:3]), parts[3:], body)
        elif parts[:2] == ["resolve", "datasets"] and len(parts) > 6:
            self.file("/".join(parts[2:4]), "/".join(parts[6:]))
        else:
            self.send(404, b"{}")

    def describe(self, name: str, asked: list[str], body: str):
        folder = self.root / name
        if not folder.is_dir():
            self.send(404, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
            return
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if not asked or asked[0] == "revision":
            known = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
            self.json({"id": name, "sha": COMMIT, **known, "siblings": [{"rfilename": file} for file in files]})
        elif asked[0] == "tree":
            below = "/".join(asked[2:])
            entries = [self.entry(folder / below, path) for path in sorted((folder / below).glob("*"))]
            self.json([{**entry, "path": f"{below}/{entry['path']}".lstrip("/")} for entry in entries])
        else:
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            self.json([self.entry(folder, folder / path) for path in wanted if (folder / path).exists()])

    def entry(self, folder: Path, path: Path) -> dict:
        data = path.read_bytes() if path.is_file() else b""
        kind = "file" if path.is_file() else "directory"
        oid = hashlib.sha1(data).hexdigest()
        return {"type": kind, "oid": oid, "size": len(data), "path": path.relative_to(folder).as_posix()}

    def file(self, name: str, path: str):
        file = self.root / name / path
        if not file.is_file():
            missing = "EntryNotFound" if (self.root / name).is_dir() else "RepoNotFound"
            self.send(404, X_Error_Code=missing, X_Repo_Commit=COMMIT)
            return
        data = file.read_bytes()
        self.send(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)


def serve(root: Path) -> ThreadingHTTPServer:
    """Serve `root` from a thread; the caller shuts it down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"root": root}))
    Thread(target=server.serve_forever, daemon=True).start()
    return server
