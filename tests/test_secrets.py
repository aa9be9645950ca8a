"""Secrets stay where they are: canaries through every connector and real processes, and the files that hold them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, quote_plus

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import BaseModel, ValidationError

from connectors.options import Secret
from connectors.registry import DIRECTORIES, INTEGRATIONS, load
from daemon.tls import verify_always
from tests.processes import ROOT, answers, children, command, environment, running, toml, until
from tests.servers.echo import EchoServer, echo_server
from tests.unixhttp import get

KINDS = [("integration", kind) for kind in INTEGRATIONS] + [("directory", kind) for kind in DIRECTORIES]
NO_SECRET = {"file", "terraform"}
"""Kinds that read files, and nothing else."""

UUID = "0f9c1c1e-5b7a-4a57-9c57-3d4c8b1f2a00"
APP = {"tenant_id": UUID, "client_id": UUID}
SAMPLES: Mapping[str, Any] = {"environment_id": UUID}
LOGINS: Mapping[str, list[dict[str, Any]]] = {
    "azure": [{"access_token": "?"}, {**APP, "client_secret": "?"}, {**APP, "certificate": "?"}],
    "entra": [{"access_token": "?"}, {**APP, "client_secret": "?"}, {**APP, "certificate": "?"}],
    "gcp": [{"access_token": "?"}, {"credentials_file": "?"}],
    "google_workspace": [{"access_token": "?"}, {"credentials_file": "?", "subject": "admin@acme.example"}],
    "okta": [{"token": "?"}, {"client_id": "app", "private_key": "?"}],
    "ldap": [{"bind_dn": "cn=reader,dc=corp", "base": "dc=corp", "schema": "rfc2307bis", "password": "?"}],
    "kubernetes": [{"kubeconfig": "?", "cluster": "prod"}],
    "aws": [{"regions": ["us-east-1"]}],
}
"""Where a kind has several logins, or none that can be told from its options: each of them; "?" is a secret."""


def model_of(role: str, kind: str) -> type[BaseModel]:
    return load((INTEGRATIONS if role == "integration" else DIRECTORIES)[kind]).Options


def secrets_of(model: type[BaseModel]) -> set[str]:
    """The options of a kind that take a secret."""

    def holds(annotation: Any) -> bool:
        return annotation is Secret or any(map(holds, get_args(annotation)))

    return {name for name, field in model.model_fields.items() if holds(field.annotation)}


def logins(role: str, kind: str) -> list[dict[str, Any]]:
    if kind in LOGINS:
        return LOGINS[kind]
    model = model_of(role, kind)
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    return [{name: "?" if name in secrets_of(model) else SAMPLES.get(name, "sample") for name in required}]


class Site:
    """One configuration with a source for every login of every kind, and a canary in each."""

    def __init__(self, folder: Path, server: EchoServer, *, trusted: bool = True, url: str | None = None) -> None:
        self.folder, self.server, self.trusted = folder, server, trusted
        self.url = url or server.url
        self.canaries: dict[str, list[str]] = {}
        """By name of the source."""
        self.environ: dict[str, str] = {}
        (folder / "people.json").write_text('{"principals": [{"kind": "group", "id": "g", "name": "g"}]}')
        owner = {"directory": "people", "attribute": "group.name", "values": ["g"]}
        rows: dict[str, list[dict[str, Any]]] = {"directory": [], "integration": []}
        rows["directory"].append({"name": "people", "connector": "file", "path": str(folder / "people.json")})
        for role, kind in KINDS:
            for number, login in enumerate(logins(role, kind) if kind not in NO_SECRET else ()):
                name = f"{kind}-{number}"
                row = {"name": name, "connector": kind, **self._options(role, kind, name, login)}
                if role == "integration":
                    row["integration_owner"] = [owner]
                rows[role].append(row)
        if not rows["integration"]:
            raise AssertionError
        self.config = folder / "ownerd.toml"
        state = str(folder / "state")
        self.config.write_text(
            toml(
                {
                    "daemon": {"state_directory": state, "runtime_directory": str(folder)},
                    "directories": rows["directory"],
                    "integrations": rows["integration"],
                }
            )
        )
        (folder / "site").mkdir()
        # Nobody is to wait between two tries.
        (folder / "site" / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
        self.environ |= {
            "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}",
            "AZURE_AUTHORITY_HOST": self.url,
            "AWS_SHARED_CREDENTIALS_FILE": str(self._aws_credentials()),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(folder),
        }

    @property
    def all_canaries(self) -> set[str]:
        return {canary for canaries in self.canaries.values() for canary in canaries}

    def _options(self, role: str, kind: str, name: str, login: Mapping[str, Any]) -> dict[str, Any]:
        model = model_of(role, kind)
        options: dict[str, Any] = {"timeout": "20s"} if "timeout" in model.model_fields else {}
        for option, value in login.items():
            if value == "?":
                path = self.folder / f"{name}.{option}"
                path.write_text(self._secret(name, kind, option))
                path.chmod(0o600)
                options[option] = {"file": str(path)} if option in secrets_of(model) else str(path)
            else:
                options[option] = value
        if kind == "ldap":
            refused = self.url.replace("https", "ldaps") if self.url != self.server.url else None
            options["url"] = refused or (self.server.ldap_url if self.trusted else self.server.ldaps_url)
        elif kind == "okta":
            options["org_url"] = self.url
        elif kind != "kubernetes":
            options["endpoint"] = self.url
        if kind == "gcp":
            options["scope"] = "projects/acme-prod"
        if self.trusted and kind != "kubernetes":
            options["ca_file"] = str(self.server.ca_file)
        return options

    def _secret(self, name: str, kind: str, option: str) -> str:
        """What the file of a secret holds; its canaries are noted."""
        canary = f"cAnArY/{name}+{option}=~9z"
        noted = self.canaries.setdefault(name, [])
        if option in {"private_key", "certificate", "credentials_file"}:
            pem = private_key()
            noted += pem.splitlines()[2:4]
            if option == "credentials_file":
                return json.dumps(
                    {
                        "type": "service_account",
                        "project_id": "acme",
                        "private_key_id": "1",
                        "private_key": pem,
                        "client_email": "ownerd@acme.iam.gserviceaccount.com",
                        "client_id": "1",
                        "token_uri": f"{self.url}/token",
                    }
                )
            return certificate(pem) + pem if option == "certificate" else pem
        noted.append(canary)
        if option == "kubeconfig":
            cluster = {"server": self.url}
            if self.trusted:
                cluster["certificate-authority"] = str(self.server.ca_file)
            return json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": canary}}],
                }
            )
        return canary + "\n"

    def _aws_credentials(self) -> Path:
        path = self.folder / "aws-credentials"
        canary = "cAnArY/aws+secret+access+key+0123456789ab"
        self.canaries["aws-0"] = [canary]
        path.write_text(f"[default]\naws_access_key_id = AKIAQWERTYUIOPASDFGH\naws_secret_access_key = {canary}\n")
        path.chmod(0o600)
        return path


def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none).decode()


def certificate(pem: str) -> str:
    """A certificate of a private key, signed by itself."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ownerd")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


def leaks(where: str, data: bytes, canaries: set[str]) -> list[str]:
    """The canaries in some bytes, in whatever encoding. Knows nothing of how they are taken out."""
    found = []
    for canary in canaries:
        forms = {canary, quote(canary, safe=""), quote(canary), quote_plus(canary), html.escape(canary)}
        forms |= {json.dumps(canary)[1:-1], canary.encode().hex(), quote(canary, safe="").lower()}
        if any(form.encode() in data for form in forms):
            found.append(f"{canary} in {where}: {data[:2000]!r}")
    for run in set(re.findall(rb"[A-Za-z0-9+/_-]{16,}", data)):
        for start in range(4):
            part = run[start:].translate(bytes.maketrans(b"-_", b"+/"))
            with contextlib.suppress(binascii.Error):
                decoded = base64.b64decode(part[: len(part) - (len(part) % 4 == 1)] + b"==")
                found += [f"{c} in {where}, in base64: {run!r}" for c in canaries if c.encode() in decoded]
    return found


class Watch:
    """Looks at the processes below one, at each request that they make: each is alive then."""

    def __init__(self) -> None:
        self.top: int | None = None
        self.seen: dict[str, bytes] = {}
        self.cores: set[bytes] = set()

    def __call__(self) -> None:
        todo = [self.top] if self.top else []
        while todo:
            pid = todo.pop()
            todo += children(pid)
            for name in ("cmdline", "environ", "limits"):
                with contextlib.suppress(OSError):  # it has ended, or keeps it from us
                    told = Path(f"/proc/{pid}/{name}").read_bytes()
                    self.seen[f"/proc/{pid}/{name}"] = told
                    if name == "limits" and pid != self.top:
                        self.cores |= set(re.findall(rb"Max core file size\s+(\S+)", told))


def run_ownerd(site: Site, watch: Watch, *words: str, **environ: str) -> bytes:
    """A command's whole output."""
    process = subprocess.Popen(
        command(*words, "--config", str(site.config)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **site.environ, **environ},
    )
    watch.top = process.pid
    try:
        output, _ = process.communicate(timeout=280)
    finally:
        process.kill()
    return output


def state_of(site: Site) -> Iterator[tuple[str, bytes]]:
    for path in sorted((site.folder / "state").rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_every_secret_option_has_a_canary(role: str, kind: str) -> None:
    """No connector's secret escapes the tests below: each option that takes one is in a login."""
    if kind in NO_SECRET:
        assert not secrets_of(model_of(role, kind))
        return
    used = {option for login in logins(role, kind) for option, value in login.items() if value == "?"}
    assert secrets_of(model_of(role, kind)) <= used, f'write each login of "{kind}" into LOGINS'


def test_the_search_finds_what_it_looks_for() -> None:
    """The canary is found in each of its encodings: the tests below can fail."""
    canary = "cAnArY/x+y=~9z"
    for text in (
        canary,
        quote_plus(canary),
        base64.b64encode(f"user:{canary}".encode()).decode(),
        base64.urlsafe_b64encode(f"ab{canary}?".encode()).decode(),
    ):
        assert leaks("here", f"… {text} …".encode(), {canary}), text
    assert not leaks("here", b"nothing of that kind, cAnArY", {canary})


@pytest.mark.parametrize("status", [400, 401, None], ids=["echoed", "refused-and-echoed", "hung-up"])
def test_no_secret_gets_out(tmp_path: Path, status: int | None) -> None:
    """Every kind's servers tell what they were sent, or hang up: no output, file, process or answer has a canary."""
    watch = Watch()
    with echo_server(tmp_path, watch, status=status) as server:
        site = Site(tmp_path, server)
        output = run_ownerd(site, watch, "sync", "--json")
        if status == 401:
            output += run_ownerd(site, watch, "check")
    received = b"\n".join(server.received)
    # The canaries were sent, or the test tests nothing; of a private key only signatures are.
    for name, canaries in site.canaries.items():
        if name not in {"aws-0", "azure-2", "entra-2", "gcp-1", "google_workspace-1", "okta-1"}:
            assert leaks("what was sent", received, set(canaries)), f"{name}: no canary was sent\n{output.decode()}"
        assert name.encode() in output, name
    assert len(watch.seen) > len(site.canaries)
    assert watch.cores == {b"0"}
    found = leaks("the output", output, site.all_canaries)
    for where, data in [*watch.seen.items(), *state_of(site)]:
        found += leaks(where, data, site.all_canaries)
    assert found == []
    assert b"Traceback" not in output, output.decode()
    if status == 400:
        with running("serve", site.config, tmp_path / "serve.log"):
            socket_ = tmp_path / "ownerd.sock"
            until(lambda: answers(socket_))
            for page in ("/v1/status", "/metrics"):
                body = get(socket_, page).body
                assert leaks(page, body, site.all_canaries) == []


UNSAFE = {
    "AWS_CA_BUNDLE": "",
    "CURL_CA_BUNDLE": "",
    "HTTPLIB2_CA_CERTS": "",
    "REQUESTS_CA_BUNDLE": "",
    "SSL_CERT_DIR": "",
    "SSL_CERT_FILE": "",
    "LDAPTLS_REQCERT": "never",
    "OKTA_TESTING_TESTINGDISABLEHTTPSCHECK": "true",
    "PYTHONHTTPSVERIFY": "0",
}
"""What turns verification off, for one library or another."""


def test_nothing_is_sent_to_whom_nobody_vouches_for(tmp_path: Path) -> None:
    """A certificate of an unknown authority, and every variable that might let it pass: not a byte of a request."""
    watch = Watch()
    with echo_server(tmp_path, watch, status=400) as server:
        site = Site(tmp_path, server, trusted=False)
        output = run_ownerd(site, watch, "sync", "--json", **UNSAFE, SSLKEYLOGFILE=str(tmp_path / "keys"))
    assert server.received == []
    ended = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "finished"]
    assert {event["source"]: event["state"] for event in ended} == {
        **dict.fromkeys(site.canaries, "failed"),
        "people": "ok",
    }
    assert leaks("the output", output, site.all_canaries) == []
    assert not (tmp_path / "keys").exists()


def test_nobody_there(tmp_path: Path) -> None:
    """Where nobody listens, errors tell no secret either."""
    watch = Watch()
    with socket.create_server(("127.0.0.1", 0)) as unused, echo_server(tmp_path, watch, status=400) as server:
        url = f"https://127.0.0.1:{unused.getsockname()[1]}"
        unused.close()
        site = Site(tmp_path, server, url=url)
        output = run_ownerd(site, watch, "check", "--json")
    assert server.received == []
    assert {json.loads(line)["source"] for line in output.splitlines()} == {*site.canaries, "people"}
    assert leaks("the output", output, site.all_canaries) == []


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_no_option_turns_verification_off(role: str, kind: str) -> None:
    """TLS is verified always: there is nothing in a kind's options to say otherwise, by name, nor by value."""
    model = model_of(role, kind)
    suspicious = re.compile(r"verif|insecure|skip|trust|check|unsafe|allow", re.IGNORECASE)
    assert [name for name in model.model_fields if suspicious.search(name)] == []
    switches = {name for name, field in model.model_fields.items() if field.annotation is bool}
    assert switches <= {"start_tls"}, "what does it switch?"
    if "ca_file" in model.model_fields:
        given = {name: value for name, value in _plain(role, kind).items() if name != "ca_file"}
        for value in (False, None, ""):
            with contextlib.suppress(ValidationError):
                assert model.model_validate({**given, "ca_file": value}).ca_file in {None, Path()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("role", "kind"), [(r, k) for r, k in KINDS if k not in NO_SECRET | {"kubernetes"}])
def test_credentials_never_go_in_the_clear(role: str, kind: str) -> None:
    """A URL without TLS is refused by every kind, but to loopback."""
    option, plain = {"okta": ("org_url", "http"), "ldap": ("url", "ldap")}.get(kind, ("endpoint", "http"))
    for host, good in (("127.0.0.1", True), ("example.org", False), ("127.0.0.1.example.org", False)):
        options = {**_plain(role, kind), option: f"{plain}://{host}"}
        if good:
            assert model_of(role, kind).model_validate(options)
        else:
            with pytest.raises(ValidationError, match="loopback only"):
                model_of(role, kind).model_validate(options)


def _plain(role: str, kind: str) -> dict[str, Any]:
    """Good options of a kind, with its first login."""
    model = model_of(role, kind)
    login = {
        name: {"env": "X"} if name in secrets_of(model) else "/x" if value == "?" else value
        for name, value in (logins(role, kind)[0] if kind not in NO_SECRET else {}).items()
    }
    more = {"okta": {"org_url": "https://x.okta.com"}, "ldap": {"url": "ldaps://x"}, "gcp": {"scope": "projects/123"}}
    files = {"terraform": {"state": "/x"}, "file": {"path": "/x"}}
    endpoint = {"endpoint": "https://example.org"} if kind == "scim" else {}
    return {**login, **more.get(kind, {}), **files.get(kind, {}), **endpoint}


def test_variables_that_would_weaken_tls() -> None:
    """Empty bundles and key logs go; a bundle that is named stays."""
    environ = {**UNSAFE, "SSLKEYLOGFILE": "/tmp/keys", "SSL_CERT_FILE": "/etc/ssl/corp.pem", "PATH": "/bin"}
    verify_always(environ)
    assert environ == {
        "SSL_CERT_FILE": "/etc/ssl/corp.pem", "PATH": "/bin",
        "LDAPTLS_REQCERT": "never", "OKTA_TESTING_TESTINGDISABLEHTTPSCHECK": "true",
    }  # fmt: skip  # the last two were shown above to be harmless


def test_memory_is_kept_private() -> None:
    """No core, whatever the limit was and wherever cores go, and nobody but root attaches: prctl(PR_GET_DUMPABLE)."""
    code = (
        "import ctypes, resource; from daemon.processes import keep_memory_private\n"
        "before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0); keep_memory_private()\n"
        "print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.split() == ["1", "0", "0", "0"], done.stderr


def test_the_poller_keeps_its_memory_private(tmp_path: Path) -> None:
    """It holds the environment, in which secrets may be: the files in /proc that tell of it are root's."""
    with echo_server(tmp_path, lambda: None, status=None) as server:
        site = Site(tmp_path, server)
        site.config.write_text(site.config.read_text().replace('"20s"', '"1s"'))
        with running("poll", site.config, tmp_path / "log") as daemon:
            daemon.wait_for("poller.ready")
            limits = Path(f"/proc/{daemon.pid}/limits").read_text()
            owner = Path(f"/proc/{daemon.pid}/environ").stat().st_uid
    assert re.search(r"Max core file size\s+0\s+0\s", limits)
    assert owner == 0
