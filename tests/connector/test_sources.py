"""Where configurations come from: a person's files, and a cluster's objects mounted and watched."""

import asyncio
import base64
import dataclasses
import json
import os
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from culvert_connector.sources import cluster as cluster_module
from culvert_connector.sources import file as file_module
from culvert_connector.sources.cluster import ClusterSource, Names
from culvert_connector.sources.file import FileError, FileSource, Overrides
from culvert_connector.sources.kubernetes_api import APIServer
from culvert_connector.sources.port import SourceError
from culvert_ingress.document import Document, RelayTarget
from culvert_ingress.rules import OriginRequest, Rule, StatusService
from culvert_protocol.credentials_file import CredentialsFile

CONFIG = """\
tunnel: demo
credentials-file: ./demo.json
relay: ["relay.test:443"]
ingress:
  - hostname: app.example.com
    service: http://localhost:{port}
  - service: http_status:404
"""


class Sink:
    """Keeps what it is given."""

    def __init__(self):
        self.documents = []
        self.received = []
        self.problems = {}

    def configuration(self, document):
        self.documents.append(document)

    def credentials(self, credentials):
        self.received.append(credentials)

    def problem(self, origin, sentence):
        self.problems[origin] = sentence

    @property
    def problem_text(self):
        return "; ".join(filter(None, self.problems.values()))


@pytest.fixture
def files(tmp_path, issuer):
    (tmp_path / "demo.json").write_text(issuer.credentials(grant=issuer.grant("app.example.com")).dumps())
    (tmp_path / "demo.json").chmod(0o600)
    (tmp_path / "config.yml").write_text(CONFIG.format(port=1000))
    return tmp_path


@asynccontextmanager
async def following(source):
    sink = Sink()
    task = asyncio.create_task(source.run(sink))
    try:
        yield sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def file_source(folder, **overrides):
    return FileSource(folder / "config.yml", overrides=Overrides(**overrides), clock=time.time)


def port_of(document):
    return document.rules[0].service.port


# -- files -----------------------------------------------------------------------------------------------------------


def test_files_become_a_document_with_the_grant_of_the_credentials(files, issuer):
    reading = file_source(files).prime()
    assert reading.document.grant == reading.credentials.grant
    assert reading.document.tunnel == "demo"
    assert port_of(reading.document) == 1000
    assert abs(reading.document.version - time.time() * 1000) < 60_000


def test_the_command_line_wins_over_the_file(files, certificates):
    ca = files / "ca.pem"
    ca.write_text(certificates.ca)
    (files / "other.json").write_text((files / "demo.json").read_text())
    (files / "demo.json").unlink()
    document = (
        file_source(files, name="mine", relays=("r2.test:1",), relay_ca=ca, credentials_file=files / "other.json")
        .prime()
        .document
    )
    assert document.tunnel == "mine"
    assert document.relay.addresses == ("r2.test:1",)
    assert document.relay.ca == certificates.ca


def test_without_a_name_for_the_credentials_the_tunnels_own_is_tried(files):
    (files / "config.yml").write_text(CONFIG.format(port=1).replace("credentials-file: ./demo.json\n", ""))
    assert file_source(files).prime().credentials.tunnel == "demo"
    (files / "demo.json").unlink()
    with pytest.raises(SourceError, match=r"demo\.json does not exist"):
        file_source(files).prime()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.yml", "tunnel: [", "config.yml"),
        ("config.yml", CONFIG.format(port=1) + "colour: blue\n", "colour"),
        ("config.yml", "\xff", "not"),
        ("demo.json", "{}", "demo.json"),
        ("demo.json", None, "does not exist"),
        ("config.yml", None, "does not exist"),
    ],
)
def test_nothing_starts_from_files_that_are_wrong(files, name, text, words):
    if text is None:
        (files / name).unlink()
    else:
        (files / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=words):
        file_source(files).prime()


def test_credentials_without_a_grant_say_how_to_get_one(files, issuer):
    (files / "demo.json").write_text(issuer.credentials().dumps())
    with pytest.raises(SourceError, match="culvert tunnel create"):
        file_source(files).prime()


def test_changes_are_followed_and_a_bad_file_keeps_the_last_good_one(tools, files, issuer, monkeypatch):
    monkeypatch.setattr(file_module, "LOOK_EVERY", 0.02)
    config = files / "config.yml"

    async def main():
        async with following(file_source(files)) as sink:
            await tools.until(lambda: sink.documents, "the first document")
            assert len(sink.received) == 1
            config.write_text(CONFIG.format(port=2000))
            await tools.until(lambda: len(sink.documents) == 2, "the change")
            assert port_of(sink.documents[1]) == 2000
            assert sink.documents[1].version > sink.documents[0].version
            config.write_text("tunnel: [")
            await tools.until(lambda: sink.problem_text, "the problem")
            assert "config.yml" in sink.problem_text
            assert len(sink.documents) == 2
            # An editor replaces the file by a rename.
            new = files / "config.yml.new"
            new.write_text(CONFIG.format(port=3000))
            os.replace(new, config)
            await tools.until(lambda: len(sink.documents) == 3, "the good file")
            assert not sink.problem_text
            config.unlink()
            await tools.until(lambda: sink.problem_text, "the missing file")
            config.write_text(CONFIG.format(port=3000))
            await tools.until(lambda: not sink.problem_text, "the file's return")
            assert len(sink.documents) == 3
            # A renewal: new credentials, and a document with their grant.
            renewed = issuer.credentials(grant=issuer.grant("app.example.com", version=2))
            (files / "demo.json").write_text(renewed.dumps())
            await tools.until(lambda: len(sink.documents) == 4, "the new grant")
            assert sink.received[-1] == renewed
            assert sink.documents[-1].grant == renewed.grant
            assert len(sink.received) == 2

    tools.run(main())


def test_versions_grow_although_the_clock_goes_back(files):
    now = [2000.0]
    source = FileSource(files / "config.yml", overrides=Overrides(), clock=lambda: now[0])
    first = source.read().document.version
    now[0] = 1000.0
    assert source.read().document.version == first + 1


def test_a_ca_file_that_changes_is_a_change(tools, files, certificates, monkeypatch):
    monkeypatch.setattr(file_module, "LOOK_EVERY", 0.02)
    ca = files / "ca.pem"
    ca.write_text(certificates.ca)
    (files / "config.yml").write_text(CONFIG.format(port=1) + "relay-ca: ca.pem\n")

    async def main():
        async with following(file_source(files)) as sink:
            await tools.until(lambda: sink.documents, "the first document")
            ca.write_text(certificates.ca + certificates.ca)
            await tools.until(lambda: len(sink.documents) == 2, "the change")
            ca.write_text("nonsense")
            await tools.until(lambda: sink.problem_text, "the problem")

    tools.run(main())


def test_errors_of_files_hold_no_secret(files):
    secret = json.loads((files / "demo.json").read_text())["privateKey"]
    (files / "demo.json").write_text((files / "demo.json").read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(FileError) as caught:
        file_source(files).read()
    assert secret not in str(caught.value)


# -- the cluster -----------------------------------------------------------------------------------------------------


class APIServerStandIn:
    """The small part of an API server that a watch of named objects needs, with the ways in which it goes wrong."""

    def __init__(self):
        self.objects = {}
        self.revision = 100
        self.watchers = []
        self.history = []
        self.requests = []
        self.tokens = []
        self.fail_with = None
        self.port = 0
        self._runner = None

    async def start(self, port=0):
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/{kind}", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self):
        for _, _, queue in self.watchers:
            queue.put_nowait(None)
        self.watchers.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put(self, kind, name, field, key, data):
        """Writes an object and tells the watchers."""
        self.revision += 1
        known = (kind, name) in self.objects
        item = {
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": str(self.revision)},
            field: {key: base64.b64encode(data).decode()},
        }
        self.objects[kind, name] = item
        self._tell(kind, name, {"type": "MODIFIED" if known else "ADDED", "object": item})

    def delete(self, kind, name):
        self.revision += 1
        item = self.objects.pop((kind, name))
        item["metadata"]["resourceVersion"] = str(self.revision)
        self._tell(kind, name, {"type": "DELETED", "object": item})

    def event(self, kind, text):
        """Sends raw bytes to the watchers of a kind."""
        for watched, _, queue in self.watchers:
            if watched == kind:
                queue.put_nowait(text)

    def _tell(self, kind, name, event):
        self.history.append((self.revision, kind, name, event))
        for watched, selector, queue in self.watchers:
            if watched == kind and selector == f"metadata.name={name}":
                queue.put_nowait(json.dumps(event).encode() + b"\n")

    async def _get(self, request):
        kind = request.match_info["kind"]
        selector = request.query.get("fieldSelector", "")
        self.requests.append((kind, "watch" if "watch" in request.query else "list"))
        self.tokens.append(request.headers.get("Authorization"))
        if self.fail_with is not None:
            return web.Response(status=self.fail_with)
        assert selector.startswith("metadata.name="), "a list of everything is not allowed to a connector"
        if "watch" not in request.query:
            item = self.objects.get((kind, selector.partition("=")[2]))
            items = [] if item is None else [item]
            metadata = {"resourceVersion": str(self.revision)}
            return web.json_response({"kind": "List", "metadata": metadata, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        queue = asyncio.Queue()
        for revision, changed, name, event in self.history:
            news = revision > int(request.query["resourceVersion"])
            if news and (changed, f"metadata.name={name}") == (kind, selector):
                queue.put_nowait(json.dumps(event).encode() + b"\n")
        entry = (kind, selector, queue)
        self.watchers.append(entry)
        try:
            while (data := await queue.get()) is not None:
                await response.write(data)
        finally:
            if entry in self.watchers:
                self.watchers.remove(entry)
        return response


def make(version, status=200, grant=""):
    rules = (Rule("r", "app.example.com", None, StatusService(status), OriginRequest()),)
    return Document(version=version, tunnel="t", relay=RelayTarget(("r.test:443",)), rules=rules, grant=grant)


class Cluster:
    """Mounted folders, a token and an API server."""

    def __init__(self, folder):
        self.folder = folder
        self.api = APIServerStandIn()
        for name in ("config", "credentials"):
            (folder / name).mkdir()
        (folder / "token").write_text("token-1\n")

    def source(self, *, api=True):
        server = APIServer(f"http://127.0.0.1:{self.api.port}", self.folder / "token", None)
        return ClusterSource(
            self.folder / "config",
            self.folder / "credentials",
            server=server if api else None,
            names=Names("ns", "main-config", "main-credential") if api else None,
            random=lambda: 0.01,
        )

    def run(self, tools, main):
        """Runs a test's coroutine and stops the API server after it, whatever happened."""

        async def guarded():
            try:
                await main
            finally:
                await self.api.stop()

        tools.run(guarded())

    def mount(self, document=None, credentials=None):
        if document is not None:
            (self.folder / "config" / "config.json.gz").write_bytes(document.gzipped())
        if credentials is not None:
            (self.folder / "credentials" / "credentials.json").write_text(credentials.dumps())

    def publish(self, document):
        self.api.put("configmaps", "main-config", "binaryData", "config.json.gz", document.gzipped())

    def publish_credentials(self, credentials):
        self.api.put("secrets", "main-credential", "data", "credentials.json", credentials.dumps().encode())


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def test_it_starts_from_the_mounts_without_any_api_server(tools, cluster, issuer, unused_port):
    async def main():
        cluster.mount(make(5), issuer.credentials())
        cluster.api.port = unused_port
        for api in (False, True):
            async with following(cluster.source(api=api)) as sink:
                await tools.until(lambda sink=sink: sink.documents and sink.received, "the mounted state")
                assert sink.documents == [make(5)]

    cluster.run(tools, main())


def test_it_starts_from_the_api_when_the_mounts_are_empty_and_sees_changes_at_once(tools, cluster, issuer):
    async def main():
        await cluster.api.start()
        cluster.publish(make(1))
        cluster.publish_credentials(issuer.credentials(age=50))
        async with following(cluster.source()) as sink:
            await tools.until(lambda: sink.documents and sink.received, "the listed objects")
            await tools.until(lambda: len(cluster.api.watchers) == 2, "both watches")
            cluster.publish(make(2))
            newer = issuer.credentials()
            cluster.publish_credentials(newer)
            await tools.until(lambda: len(sink.documents) == 2 and len(sink.received) == 2, "the changes", within=2)
            assert sink.received[-1] == newer
            assert not sink.problem_text
        assert set(cluster.api.requests) == {
            (kind, verb) for kind in ("configmaps", "secrets") for verb in ("list", "watch")
        }

    cluster.run(tools, main())


def test_the_newest_version_wins_wherever_it_comes_from(tools, cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "LOOK_EVERY", 0.02)

    async def main():
        await cluster.api.start()
        cluster.mount(make(10))
        cluster.publish(make(20))
        async with following(cluster.source()) as sink:
            await tools.until(lambda: sink.documents and sink.documents[-1].version == 20, "the API's version")
            cluster.mount(make(15))  # the kubelet is behind
            await asyncio.sleep(0.2)
            cluster.publish(make(12))  # a restored object
            cluster.publish(make(30))
            await tools.until(lambda: sink.documents[-1].version == 30, "the newest")
            assert [one.version for one in sink.documents] == [10, 20, 30]
            cluster.mount(make(40))
            await tools.until(lambda: sink.documents[-1].version == 40, "the mount's version")

    cluster.run(tools, main())


def test_an_object_that_is_not_valid_is_reported_and_replaced_by_the_next_good_one(tools, cluster, issuer):
    async def main():
        await cluster.api.start()
        cluster.publish(make(1))
        cluster.publish_credentials(issuer.credentials())
        async with following(cluster.source()) as sink:
            await tools.until(lambda: len(cluster.api.watchers) == 2 and sink.documents, "the watches")
            cluster.api.put("configmaps", "main-config", "binaryData", "config.json.gz", b"not gzip")
            await tools.until(lambda: sink.problem_text, "the problem")
            assert "config.json.gz" in sink.problem_text
            cluster.mount(make(1))
            assert len(sink.documents) == 1
            cluster.publish(make(2))
            await tools.until(lambda: not sink.problem_text, "the problem's end")
            cluster.api.put("secrets", "main-credential", "data", "credentials.json", b'{"privateKey": "hush"}')
            await tools.until(lambda: sink.problem_text, "the problem")
            assert "hush" not in sink.problem_text
            assert len(sink.received) == 1

    cluster.run(tools, main())


@pytest.mark.parametrize(
    "breakage",
    [
        b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}\n',
        b'{"type": "ERROR", "object": {"code": 500}}\n',
        b'{"type": "MODI',
        b"not json\n",
        b"[]\n",
        b'{"type": "MODIFIED", "object": {}}\n',
        None,
    ],
)
def test_a_broken_watch_loses_no_change(tools, cluster, breakage):
    async def main():
        await cluster.api.start()
        cluster.publish(make(1))
        async with following(cluster.source()) as sink:
            await tools.until(lambda: len(cluster.api.watchers) == 2 and sink.documents, "the watches")
            cluster.api.event("configmaps", breakage)
            if breakage is not None and not breakage.endswith(b"\n"):
                cluster.api.event("configmaps", None)
            await tools.until(
                lambda: cluster.api.requests.count(("configmaps", "watch")) >= 2, "another watch of the ConfigMap"
            )
            await tools.until(lambda: [one[0] for one in cluster.api.watchers].count("configmaps") == 1, "the watch")
            cluster.publish(make(2))
            await tools.until(lambda: sink.documents[-1].version == 2, "the change")

    cluster.run(tools, main())


def test_an_api_server_that_goes_away_changes_nothing_and_is_followed_again(tools, cluster):
    async def main():
        await cluster.api.start()
        port = cluster.api.port
        cluster.publish(make(1))
        async with following(cluster.source()) as sink:
            await tools.until(lambda: len(cluster.api.watchers) == 2 and sink.documents, "the watches")
            await cluster.api.stop()
            cluster.api.objects.clear()
            cluster.publish(make(2))
            await cluster.api.start(port)
            await tools.until(lambda: sink.documents[-1].version == 2, "what changed meanwhile")
            cluster.api.delete("configmaps", "main-config")
            cluster.publish(make(3))
            await tools.until(lambda: sink.documents[-1].version == 3, "the object made again")
            assert not sink.problem_text

    cluster.run(tools, main())


def test_the_token_is_read_anew_for_every_request(tools, cluster):
    async def main():
        await cluster.api.start()
        cluster.publish(make(1))
        async with following(cluster.source()) as sink:
            await tools.until(lambda: len(cluster.api.watchers) == 2 and sink.documents, "the watches")
            assert set(cluster.api.tokens) == {"Bearer token-1"}
            (cluster.folder / "token").write_text("token-2")
            cluster.api.event("configmaps", None)
            await tools.until(lambda: "Bearer token-2" in cluster.api.tokens, "the new token")

    cluster.run(tools, main())


def test_refusals_of_the_api_server_are_tried_again(tools, cluster):
    async def main():
        await cluster.api.start()
        cluster.publish(make(1))
        cluster.api.fail_with = 403
        async with following(cluster.source()) as sink:
            await tools.until(lambda: len(cluster.api.requests) >= 4, "a few tries")
            cluster.api.fail_with = None
            await tools.until(lambda: sink.documents, "the object")

    cluster.run(tools, main())


def test_older_credentials_never_come_back(tools, cluster, issuer, monkeypatch):
    monkeypatch.setattr(cluster_module, "LOOK_EVERY", 0.02)

    async def main():
        older, newer = issuer.credentials(age=100), issuer.credentials()
        await cluster.api.start()
        cluster.publish_credentials(newer)
        async with following(cluster.source()) as sink:
            await tools.until(lambda: sink.received, "the credentials")
            cluster.mount(credentials=older)
            await asyncio.sleep(0.2)
            assert sink.received == [newer]

    cluster.run(tools, main())


def test_the_pods_own_server_and_the_objects_names_come_from_its_environment(tmp_path):
    assert APIServer.of_pod({}) is None
    server = APIServer.of_pod(
        {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, folder=tmp_path
    )
    assert server.url == "https://[fd00::1]:6443"
    assert server.token_file == tmp_path / "token"
    names = {"CULVERT_NAMESPACE": "a", "CULVERT_CONFIGMAP": "b", "CULVERT_SECRET": "c"}
    assert Names.of_environment(names) == Names("a", "b", "c")
    assert Names.of_environment({**names, "CULVERT_SECRET": ""}) is None


def test_a_whole_connector_follows_the_cluster(tools, cluster, issuer):
    """From mounted files to a served request, then a change through the watch."""

    async def main():
        async with tools.world() as world:
            connector = world.connector
            target = RelayTarget((world.relay.address,), "relay.test", world.certificates.ca)
            first = dataclasses.replace(make(1, 201, issuer.grant("app.example.com")), relay=target)
            cluster.mount(first, CredentialsFile.loads(issuer.credentials().dumps()))
            await cluster.api.start()
            task = asyncio.create_task(cluster.source().run(connector))
            await world.relay.connected(1)
            assert (await world.relay.request().answered()).status == 201
            await tools.until(lambda: len(cluster.api.watchers) == 2, "the watches")
            second = dataclasses.replace(first, version=2, rules=make(2, 202).rules)
            began = asyncio.get_running_loop().time()
            cluster.publish(second)
            await tools.until(lambda: connector.report().applied_version == 2, "the change")
            assert asyncio.get_running_loop().time() - began < 1
            assert (await world.relay.request().answered()).status == 202
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    cluster.run(tools, main())
