"""A data-set hub on localhost with one set in it: the few calls of the hub's API that streaming a set takes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class SmallHub:
    """Serves the files under `folder` as the set `name` at COMMIT; `asked` lists the paths that were requested."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.asked = name, folder, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer()

            def do_POST(self):
                wanted = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                self.answer(wanted=wanted)

            def answer(self, body=True, wanted=""):
                path = unquote(urlparse(self.path).path)
                hub.asked.append(path)
                status, content, headers = hub.respond(path, wanted)
                span = self.headers.get("Range")
                if status == 200 and span and path.startswith("/datasets/"):
                    first, last = span.removeprefix("bytes=").split("-")
                    last = int(last) if last else len(content) - 1
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                    status, content = 206, content[int(first) : last + 1]
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> SmallHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def respond(self, path: str, wanted: str) -> tuple[int, bytes, dict[str, str]]:
        api = f"/api/datasets/{self.name}"
        as_json = {"Content-Type": "application/json"}
        if path.rstrip("/") == api or path.startswith(f"{api}/revision/"):
            if path.startswith(f"{api}/revision/") and path.rsplit("/", 1)[1] not in ("main", COMMIT):
                return 404, b'{"error": "no such revision"}', as_json | {"X-Error-Code": "RevisionNotFound"}
            told = {"id": self.name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files()], "tags": []}
            return 200, json.dumps(told).encode(), as_json
        if path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
            return 200, json.dumps(self.entries(below)).encode(), as_json
        if path.startswith(f"{api}/paths-info/"):
            asked = json.loads(wanted)["paths"] if wanted.startswith("{") else []
            found = [e for p in asked for e in self.entry(p)]
            return 200, json.dumps(found).encode(), as_json
        prefix = f"/datasets/{self.name}/resolve/{COMMIT}/"
        file = self.folder / path.removeprefix(prefix)
        if path.startswith(prefix) and file.is_file():
            headers = {"ETag": '"1"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            return 200, file.read_bytes(), headers
        return 404, b'{"error": "not here"}', as_json | {"X-Error-Code": "EntryNotFound"}

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())

    def entry(self, path: str) -> list[dict]:
        file = self.folder / path
        if file.is_file():
            return [{"type": "file", "path": path, "size": file.stat().st_size, "oid": "1"}]
        return [{"type": "directory", "path": path, "oid": "1", "size": 0}] if file.is_dir() and path else []

    def entries(self, below: str) -> list[dict]:
        return [
            e for p in sorted((self.folder / below).rglob("*")) for e in self.entry(str(p.relative_to(self.folder)))
        ]
