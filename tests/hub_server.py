"""A loopback server that speaks as much of the Hugging Face Hub's protocol as its client needs for files.

Downloads, and uploads as the client makes them without Xet (`huggingface_hub.constants.HF_HUB_DISABLE_XET`).
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Hub:
    """Repositories to serve, faults to commit, and what was asked for.

    Attributes:
        repos: Repository name to revision to folder; the revision "main" is the default one.
        faults: What goes wrong, by (method, file name): a status code, "gated", or "cut" to close the
            connection half-way through the body; with how often, -1 for always.
        requests: (method, path) of every request.
        tokens: Tokens that requests carried.
        root: Where repositories are made; without, nothing can be uploaded.
        private: Repositories that were asked to be private.
        commits: The messages, by repository.
        objects: Large files that were uploaded, by SHA-256.
    """

    url: str = ""
    repos: dict[str, dict[str, Path]] = field(default_factory=dict)
    faults: dict[tuple[str, str], list] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    root: Path | None = None
    private: set[str] = field(default_factory=set)
    commits: dict[str, list[str]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, folder: Path, revision: str = "main") -> None:
        """Serve `folder` as a revision of the repository `name`."""
        self.repos.setdefault(name, {})[revision] = folder

    def fail(self, method: str, filename: str, fault: int | str, times: int = -1) -> None:
        """Answer requests for `filename` with a status code, or cut the connection."""
        self.faults[method, filename] = [fault, times]

    def fault(self, method: str, filename: str) -> int | str | None:
        """The fault to commit now."""
        entry = self.faults.get((method, filename))
        if entry is None or entry[1] == 0:
            return None
        entry[1] -= 1
        return entry[0]

    def count(self, method: str, filename: str) -> int:
        """How often a file was asked for."""
        return sum(m == method and path.endswith(f"/{filename}") for m, path in self.requests)


def commit(revision: str) -> str:
    """The commit that a branch or tag points to: 40 hexadecimal digits."""
    is_commit = len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    return revision if is_commit else hashlib.sha1(revision.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            return self._call(b"")
        return self._answer(body=True)

    def do_POST(self):
        self._call(self._body())

    def do_PUT(self):
        self._call(self._body())

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _call(self, body: bytes):
        """Answer what is not a file: the calls of an upload."""
        self.hub.requests.append((self.command, self.path))
        self.hub.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        path = unquote(self.path.split("?")[0]).strip("/")
        for call in ("repos/create", "validate-yaml", "preupload", "tree", "commit", "objects/batch", "objects"):
            if f"/{call}/" in f"/{path}/":
                break
        else:
            return self._error(404, "")
        fault = self.hub.fault(self.command, call)
        if isinstance(fault, int):
            return self._error(fault, "")
        repo = path.removeprefix("api/models/").partition(f"/{call}")[0].removesuffix(".git/info/lfs")
        if call == "objects":
            self.hub.objects[path.rpartition("/")[2]] = body
            return self._json({})
        data = json.loads(body) if body and call != "commit" else {}
        if call == "repos/create":
            repo = f"{data['organization'] or 'me'}/{data['name']}"
            if repo in self.hub.repos:
                return self._json({"url": f"{self.hub.url}/{repo}"}, 409)
            if data.get("visibility") == "private":
                self.hub.private.add(repo)
            (self.hub.root / repo).mkdir(parents=True)
            self.hub.add(repo, self.hub.root / repo)
            return self._json({"url": f"{self.hub.url}/{repo}"})
        if call == "validate-yaml":
            valid = data["content"].startswith("---\n") and "\n---\n" in data["content"]
            return self._json({"errors": [] if valid else [{"message": "no metadata"}]}, 200 if valid else 400)
        if call == "objects/batch":
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.hub.url}/objects/{entry['oid']}"}}}
                for entry in data["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if repo not in self.hub.repos:
            return self._error(404, "RepoNotFound")
        folder = self.hub.repos[repo]["main"]
        if call == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in data["files"]
            ]
            return self._json({"files": modes})
        if call == "tree":
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in folder.iterdir()
            ]
            return self._json(entries)
        for operation in map(json.loads, body.splitlines()):
            value = operation["value"]
            match operation["key"]:
                case "header":
                    self.hub.commits.setdefault(repo, []).append(value["summary"])
                case "file":
                    (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
                case "lfsFile":
                    (folder / value["path"]).write_bytes(self.hub.objects[value["oid"]])
                case "deletedFile":
                    (folder / value["path"]).unlink()
        return self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit('main')}", "commitOid": commit("main")})

    def _json(self, value, status: int = 200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, body: bool):
        self.hub.requests.append((self.command, self.path))
        self.hub.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        repo, separator, rest = unquote(self.path.split("?")[0]).lstrip("/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        if not separator or repo not in self.hub.repos:
            return self._error(404, "RepoNotFound")
        revisions = self.hub.repos[repo]
        folder = revisions.get(revision) or {commit(name): path for name, path in revisions.items()}.get(revision)
        if folder is None:
            return self._error(404, "RevisionNotFound")
        fault = self.hub.fault(self.command, filename)
        if fault == "gated":
            return self._error(403, "GatedRepo")
        if isinstance(fault, int):
            return self._error(fault, "")
        if not (folder / filename).is_file():
            return self._error(404, "EntryNotFound", commit(revision))
        content = (folder / filename).read_bytes()
        start = 0
        if (wanted := self.headers.get("Range")) is not None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit(revision))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if not body:
            return None
        if fault == "cut":
            # Nothing beyond the headers on a resumed download: the client gives up only when no byte arrives.
            self.wfile.write(content[: len(content) // 2] if start == 0 else b"")
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return None
        self.wfile.write(content[start:])
        return None

    def _error(self, status: int, code: str, revision: str = ""):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        if revision:
            self.send_header("X-Repo-Commit", revision)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serve() -> Iterator[Hub]:
    """Run the server on a free port of the loopback interface."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
