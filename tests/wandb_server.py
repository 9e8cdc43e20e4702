"""A stand-in for W&B's server, spoken to by the real client online: it answers what wandb 0.31 asks and keeps what it is sent.

`mode`: "answers"; "hangs", requests are taken and never answered; "fails", each is answered with status 500.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode, self.asked, self.received = "answers", [], []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.released.set()
        self.shutdown()
        self.server_close()

    def history(self):
        """The rows of `run.log` that arrived, in their order."""
        rows = {}
        for body in self.received:
            part = body.get("files", {}).get("wandb-history.jsonl")
            for i, line in enumerate(part["content"] if part else []):
                rows[part["offset"] + i] = json.loads(line)
        return [rows[at] for at in sorted(rows)]

    def groups(self):
        """The group and the job type that each run was opened with."""
        return [(v["groupName"], v["jobType"]) for name, v in self.asked if name == "UpsertBucket" and v["groupName"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError, ValueError):  # the client has gone
            super().handle()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.mode == "hangs":
            self.server.released.wait()
            return
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if self.path == "/graphql":
            asked = json.loads(body)
            name = asked.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", asked["query"]).group(1)
            self.server.asked.append((name, asked.get("variables") or {}))
            self._send({"data": self._answer(*self.server.asked[-1])})
        else:
            if self.path.endswith("/file_stream"):
                self.server.received.append(json.loads(body))
            self._send({})

    do_PUT = do_POST

    def do_GET(self):
        self._send({})

    def _answer(self, name, variables):
        project = {"id": "cA==", "name": variables.get("project") or "p", "entity": {"id": "ZQ==", "name": "e"}}
        if name == "Viewer":
            return {"viewer": {"id": "1", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}}
        if name == "UpsertBucket":
            bucket = {"id": "cnVu", "name": variables["name"], "displayName": "run", "description": "", "config": "{}"}
            bucket |= {"sweepName": None, "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/upload"} for file in variables["files"]]
            return {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": files}}
        if name == "ArtifactType":
            return {"project": None}
        if name == "CreateArtifact":  # as if it had it already: then no file is uploaded
            artifact = {"id": "YQ==", "state": "COMMITTED"}
            latest = {"id": "YQ==", "versionIndex": 0}
            return {
                "createArtifact": {
                    "artifact": artifact | {"artifactSequence": {"id": "cw==", "latestArtifact": latest}}
                }
            }
        return {}

    def _send(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(500 if self.server.mode == "fails" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
