"""A server on loopback that speaks as much of the Hub's HTTP as huggingface_hub uses."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest


class HubServer(ThreadingHTTPServer):
    """One model repository, `org/fusion`; `main` and `v1` mean the same commit.

    Attributes:
        files: what the repository holds.
        log: method, path and Range header of every request, and whether it carried a token.
        cuts: for each file, after how many bytes the next transfers break off.
        corrupt: whether a byte changes on the way.
        resets: how many transfers are reset half-way, which is ruder than a cut.
        statuses: what the next requests for metadata are answered with, instead of what they ask for.
        always: the same for all of them.
        token: if set, requests without it are refused.
        gated: whether the repository is.
        commits: what was uploaded: message and file names.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.log = []
        self.cuts: dict[str, list[int]] = {}
        self.corrupt = False
        self.resets = 0
        self.statuses: list[int] = []
        self.always = None
        self.token = None
        self.gated = False
        self.commits = []
        self.blobs: dict[str, bytes] = {}
        self.storage = None  # where large files are, as on the Hub: another server

    def handle_error(self, request, client_address):
        """A client that went away is part of the tests."""

    @property
    def commit(self):
        """As in git, another one for other content."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def put(self, name, data, task="ir-vis", version="1.0.0", **wrong):
        """Adds a checkpoint and lists it, truly unless `wrong` says otherwise."""
        rows = json.loads(self.files.get("catalogue.json", b"[]"))
        row = {
            "name": name,
            "task": task,
            "version": version,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "description": f"{name} of the tests",
        }
        self.files[f"{name}.safetensors"] = data
        self.files["catalogue.json"] = json.dumps([*rows, {**row, **wrong}]).encode()

    def transfers(self, file):
        """Range headers of all requests for the content of a file."""
        return [span for method, path, span, _ in self.log if method == "GET" and path.endswith(file)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.resolve()

    def do_GET(self):
        self.resolve()

    def note(self):
        self.path = unquote(urlsplit(self.path).path)
        has_token = self.headers.get("Authorization") is not None
        self.server.log.append((self.command, self.path, self.headers.get("Range"), has_token))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def resolve(self):
        self.note()
        hub = self.server
        kept = re.fullmatch(r"/(?:storage|api/resolve-cache)/(.+)", self.path)
        if kept:
            return self.content(kept[1])
        asked = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path)
        if not asked:
            return self.answer(404, b"not a Hub path")
        repository, revision, file = asked.groups()
        if hub.always or hub.statuses:
            return self.answer(hub.always or hub.statuses.pop(0))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            # The Hub does not tell strangers which private repositories exist.
            given = self.headers.get("Authorization")
            if given:
                return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
            return self.answer(401, X_Error_Code="RepoNotFound")
        if repository != "org/fusion":
            return self.answer(401, X_Error_Code="RepoNotFound")
        if hub.gated:
            return self.answer(403, X_Error_Code="GatedRepo")
        if revision not in ("main", "v1", hub.commit):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if file not in hub.files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=hub.commit)
        if file.endswith(".safetensors"):
            data = hub.files[file]
            return self.answer(
                302,
                Location=f"{hub.storage.url}/storage/{file}",
                ETag='"pointer"',
                X_Linked_ETag=f'"{hashlib.sha256(data).hexdigest()}"',
                X_Linked_Size=len(data),
                X_Repo_Commit=hub.commit,
            )
        return self.answer(307, Location=f"/api/resolve-cache/{file}")

    def content(self, file):
        data = self.server.files[file]
        if self.server.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        span = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        cuts = self.server.cuts.get(file, [])
        reset = self.command == "GET" and self.server.resets > 0 and file.endswith(".safetensors")
        if reset:
            self.server.resets -= 1
            cuts = [len(data) // 2]
        rest = data[start : cuts.pop(0) if cuts and self.command == "GET" else None]
        self.answer(
            206 if start else 200,
            rest,
            Content_Length=len(data) - start,
            ETag=f'"{hashlib.sha1(data).hexdigest()}"',
            X_Repo_Commit=self.server.commit,
            Accept_Ranges="bytes",
            **span,
        )
        if self.command == "GET" and start + len(rest) < len(data):
            self.close_connection = True
            if reset:
                # Closing with a timeout of zero discards what was sent and tells the other side so.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def do_PUT(self):
        self.note()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[hashlib.sha256(data).hexdigest()] = data
        self.answer(200)

    def do_POST(self):
        self.note()
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        if self.path == "/api/repos/create":
            return self.json({"url": f"{hub.url}/org/fusion", "name": json.loads(body)["name"], "id": "1"})
        if self.path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if self.path == "/api/models/org/fusion/preupload/main":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return self.json({"files": modes, "commitOid": hub.commit})
        if self.path == "/org/fusion.git/info/lfs/objects/batch":
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.storage.url}/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.json({"transfer": "basic", "objects": objects})
        if self.path == "/api/models/org/fusion/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                else:
                    hub.files[value["path"]] = hub.storage.blobs[value["oid"]]
            hub.commits.append(lines[0]["value"]["summary"])
            return self.json(
                {
                    "commitUrl": f"{hub.url}/org/fusion/commit/{hub.commit}",
                    "commitOid": hub.commit,
                    "success": True,
                }
            )
        return self.answer(404)

    def json(self, content):
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")


@pytest.fixture(autouse=True)
def _use_one_thread(one_thread):
    """For all tests of this folder."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, as `HF_ENDPOINT` of this process and its children, with a cache of its own."""
    import huggingface_hub.constants as constants
    from huggingface_hub.utils import close_session

    servers = [HubServer(), HubServer()]
    server, server.storage = servers
    server.storage.files = server.files
    server.storage.cuts, server.storage.log = server.cuts, server.log
    for one in servers:
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    home = tmp_path / "hf"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # These are read once, at import.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries: half a minute in all
    yield server
    close_session()
    for one in servers:
        one.shutdown()
        one.server_close()
