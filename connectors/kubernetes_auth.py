"""Who ownerd is to an API server: a pod's service account, or a kubeconfig.

The kubernetes client reads both. Done here is what it would do wrong: it goes on without credentials when an exec
plugin fails, waits for a plugin for ever, takes "skip TLS verification" at its word, and passes over `as`.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import orjson
from pydantic import Field
from pydantic_core import PydanticCustomError

from connectors.answers import one_line
from connectors.errors import Misconfigured, Unauthenticated
from connectors.http import check_sendable
from connectors.options import HttpOptions, require_tls

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_PLUGIN_APIS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class ClusterOptions(HttpOptions):
    """Where an API server is, and who ownerd is to it."""

    kubeconfig: Path | None = Field(None, description="Path of a kubeconfig file; default: in-cluster.")
    context: str | None = Field(None, description="Context of the kubeconfig; default: its current one.")


def configuration_of(options: ClusterOptions, folder: Path) -> Configuration:
    """The client's configuration: server, trust, credentials, proxy. `folder` is for keys that stand in a kubeconfig.

    Misconfigured, or Unauthenticated where a plugin refuses. Runs the exec plugin, if there is one.
    """
    from kubernetes.client import Configuration

    made = Configuration()
    if options.kubeconfig is None and options.context is None:
        _from_pod(made)
    else:
        _from_kubeconfig(made, options, folder)
    made.refresh_api_key_hook = None  # it would put server and trust back to what they were; a 401 renews instead
    made.retries = False  # `retrying` does it, and says why it gave up
    if options.endpoint is not None:
        made.host = options.endpoint.rstrip("/")
    if options.ca_file is not None:
        made.ssl_ca_cert = str(options.ca_file)
    _require_sound(made)
    _set_proxy(made, options)
    for name, secret in made.api_key.items():
        made.api_key[name] = secret.strip()
        check_sendable(secret.strip(), "the token for the API server")
    return made


def _from_pod(made: Configuration) -> None:
    from kubernetes.config import ConfigException, load_incluster_config

    load: Any = load_incluster_config
    try:
        load(client_configuration=made, try_refresh_token=False)
    except (ConfigException, OSError) as error:
        raise Misconfigured(
            f"in-cluster credentials: {one_line(str(error))}",
            remedy="run in a pod that mounts its service account's token, or set `kubeconfig`",
        ) from error


# --- kubeconfig -----------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """A named entry of a kubeconfig, and the folder that its relative paths start from."""

    content: dict[str, Any]
    folder: Path


def _from_kubeconfig(made: Configuration, options: ClusterOptions, folder: Path) -> None:
    from kubernetes.config import ConfigException, load_kube_config_from_dict

    load: Any = load_kube_config_from_dict
    where = "kubeconfig"
    files = list(_files(options))
    name = options.context or next((c for d, _ in files if isinstance(c := d.get("current-context"), str) and c), "")
    context = _named(files, "context", name, f"{where}: ").content
    where = f'{where}, context "{one_line(name)}"'
    cluster = _named(files, "cluster", context.get("cluster"), f"{where}: ")
    user = _named(files, "user", context["user"], f"{where}: ") if context.get("user") else _Entry({}, Path())
    _refuse_unsafe(cluster.content, user.content, where)
    login = user.content
    if isinstance(spec := login.get("exec"), dict):
        login = _ask_plugin(spec, cluster, user.folder, where, options.timeout)
    whole = {
        "current-context": "this",
        "contexts": [{"name": "this", "context": {"cluster": "this", "user": "this"}}],
        "clusters": [{"name": "this", "cluster": _absolute(cluster)}],
        "users": [{"name": "this", "user": _absolute(_Entry(login, user.folder))}],
    }
    try:
        load(whole, client_configuration=made, persist_config=False, temp_file_path=str(folder / "keys"))
    except ConfigException as error:
        raise Misconfigured(f"{where}: {one_line(str(error))}") from error
    except OSError as error:
        raise Misconfigured(f"{where}: {error.filename}: {error.strerror}") from error
    except (binascii.Error, UnicodeDecodeError):  # without its cause, which shows the text
        raise Misconfigured(f"{where}: a certificate or key in it is not base64") from None


def _files(options: ClusterOptions) -> Iterator[tuple[dict[str, Any], Path]]:
    """Each kubeconfig that counts, with its folder. Without the option, as kubectl: $KUBECONFIG, ~/.kube/config."""
    import yaml  # type: ignore[import-untyped]

    if options.kubeconfig is not None:
        paths = [options.kubeconfig]
    else:
        told = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p] or ["~/.kube/config"]
        paths = [path for p in told if (path := Path(p).expanduser()).exists()]
        if not paths:
            raise Misconfigured(f"kubeconfig: no such file: {', '.join(told)}", remedy="set `kubeconfig`")
    for path in paths:
        try:
            document = yaml.safe_load(path.read_bytes())
        except OSError as error:
            raise Misconfigured(f"kubeconfig: {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:  # without its cause, which shows the text
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise Misconfigured(f"kubeconfig: {path} is not YAML{line}") from None
        if not isinstance(document, dict):
            raise Misconfigured(f"kubeconfig: {path} is no kubeconfig")
        yield document, path.absolute().parent


def _named(files: list[tuple[dict[str, Any], Path]], what: str, name: Any, place: str) -> _Entry:
    """The first entry of a name: of several files, the first that has it counts, as for kubectl."""
    known = []
    for document, folder in files:
        rows = document.get(f"{what}s")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(content := row.get(what), dict):
                if name and row.get("name") == name:
                    return _Entry(content, folder)
                known.append(str(row.get("name")))
    if not name:
        raise Misconfigured(f"{place}no {what} is chosen", remedy="set `context`" if what == "context" else "")
    has = f"it has: {one_line(', '.join(known))}" if known else "it has none"
    raise Misconfigured(f'{place}there is no {what} "{one_line(str(name))}"', remedy=has)


def _absolute(entry: _Entry) -> dict[str, Any]:
    """Paths in a kubeconfig start from its folder."""
    paths = {key: str(entry.folder / entry.content[key]) for key in _FILES if isinstance(entry.content.get(key), str)}
    return {**entry.content, **paths}


def _refuse_unsafe(cluster: Mapping[str, Any], user: Mapping[str, Any], where: str) -> None:
    if cluster.get("insecure-skip-tls-verify"):
        raise Misconfigured(
            f"{where}: insecure-skip-tls-verify is refused: whoever is in between would get the credentials",
            remedy="put the cluster's authority into certificate-authority-data, or set `ca_file`",
        )
    if "auth-provider" in user:
        raise Misconfigured(
            f"{where}: auth-provider is not supported; kubectl has dropped it in 1.26",
            remedy="use an exec plugin, or a service account's token",
        )
    if told := [key for key in ("as", "as-uid", "as-groups", "as-user-extra") if user.get(key)]:
        raise Misconfigured(f"{where}: impersonation ({', '.join(told)}) is not supported")


# --- exec plugins: aws eks get-token, gke-gcloud-auth-plugin, kubelogin ---------------------------------------------


def _ask_plugin(spec: Mapping[str, Any], cluster: _Entry, folder: Path, where: str, limit: float) -> dict[str, Any]:
    """What the plugin says, as a kubeconfig's user: a token, or a client certificate and its key."""
    command, api = spec.get("command"), spec.get("apiVersion")
    if not isinstance(command, str) or not command or api not in _PLUGIN_APIS:
        raise Misconfigured(f"{where}: exec wants a command, and one of these as apiVersion: {', '.join(_PLUGIN_APIS)}")
    if spec.get("interactiveMode") == "Always":
        raise Misconfigured(f"{where}: {one_line(command)} wants a terminal, which a service has not")
    found = shutil.which(str(folder / command) if "/" in command else command)
    if found is None:
        hint = spec.get("installHint")
        raise Misconfigured(
            f"{where}: the exec plugin {one_line(command)} is not there",
            remedy=one_line(hint) if isinstance(hint, str) else "install it, or put its folder on ownerd's PATH",
        )
    info: dict[str, Any] = {"apiVersion": api, "kind": "ExecCredential", "spec": {"interactive": False}}
    if spec.get("provideClusterInfo"):
        info["spec"]["cluster"] = _cluster_info(cluster)
    extra = [e for e in spec.get("env") or () if isinstance(e, dict) and {"name", "value"} <= e.keys()]
    env = os.environ | {str(e["name"]): str(e["value"]) for e in extra}
    env |= {"KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}
    place = f"{where}: the exec plugin {one_line(command)}"
    told = _run([found, *map(str, spec.get("args") or ())], env, place, limit)
    try:
        document = orjson.loads(told)
        status = document["status"]
        wrong = document["kind"] != "ExecCredential" or document["apiVersion"] != api
        token, certificate, key = (status.get(k) for k in ("token", "clientCertificateData", "clientKeyData"))
    except (ValueError, TypeError, KeyError, AttributeError):  # without its cause: what it wrote may hold a token
        raise Misconfigured(f"{place}: what it wrote is no ExecCredential") from None
    if wrong:
        raise Misconfigured(f"{place}: what it wrote is no ExecCredential of {api}")
    login: dict[str, Any] = {"token": token} if isinstance(token, str) and token else {}
    if isinstance(certificate, str) and isinstance(key, str):
        login["client-certificate-data"] = base64.b64encode(certificate.encode()).decode()
        login["client-key-data"] = base64.b64encode(key.encode()).decode()
    if not login:
        raise Unauthenticated(f"{place}: it gave no credentials")
    return login


def _run(command: list[str], env: Mapping[str, str], place: str, limit: float) -> bytes:
    """What a command writes. It and all that it started are ended when it takes too long."""
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _fail_late(process, place, limit)
    if process.returncode != 0:
        said = next((line for line in err.decode(errors="replace").splitlines() if line.strip()), "")
        raise Unauthenticated(
            f"{place} ended with {process.returncode}: {one_line(said.strip())}",
            remedy="run it as ownerd's user, with the environment that the service has",
        )
    return out


def _fail_late(process: subprocess.Popen[bytes], place: str, limit: float) -> NoReturn:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()  # rather than read to its end: whoever has left the group may hold the other
    process.wait()
    raise Unauthenticated(f"{place} was stopped after {limit:g} s", remedy="it may wait for a login: run it by hand")


def _cluster_info(cluster: _Entry) -> dict[str, Any]:
    taken = ("server", "tls-server-name", "certificate-authority-data", "proxy-url")
    info = {key: cluster.content[key] for key in taken if key in cluster.content}
    for row in cluster.content.get("extensions") or ():
        if isinstance(row, dict) and row.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = row.get("extension")
    return info


# --- what is sound --------------------------------------------------------------------------------------------------


def _require_sound(made: Configuration) -> None:
    """Look at trust and certificates now: urllib3 would do so at each connection, and ask a terminal for passwords."""
    try:
        require_tls(made.host, "the server's address")
    except PydanticCustomError as error:
        raise Misconfigured(str(error)) from error
    try:
        context = ssl.create_default_context(cafile=made.ssl_ca_cert)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(
            f"ca_file: {made.ssl_ca_cert}: {error.strerror or error}", remedy="name a readable PEM bundle"
        ) from error
    if made.cert_file is None:
        return

    def encrypted() -> str:
        raise Misconfigured("the client key has a passphrase", remedy="nobody can type it: give a key without one")

    try:
        context.load_cert_chain(made.cert_file, made.key_file, encrypted)
    except OSError as error:
        raise Misconfigured(f"client certificate: {error.strerror or error}") from error


def _set_proxy(made: Configuration, options: ClusterOptions) -> None:
    """By the option; else by the kubeconfig's `proxy-url`; else by HTTPS_PROXY and NO_PROXY."""
    import urllib3

    if options.proxy is not None:
        made.proxy, made.no_proxy = options.proxy, ""
    if not made.proxy:
        return
    if "://" not in made.proxy:
        made.proxy = f"http://{made.proxy}"
    if not re.match(r"https?://[^/]", made.proxy):
        raise Misconfigured("proxy: that is no URL of an HTTP proxy", remedy="http://proxy.example:3128")
    if auth := urllib3.util.parse_url(made.proxy).auth:
        made.proxy_headers = urllib3.make_headers(proxy_basic_auth=auth)
