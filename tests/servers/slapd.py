"""A real OpenLDAP server on loopback, empty but for its suffix, a reader and what a test adds.

    with Slapd(suffix="dc=corp,dc=example") as s:
        s.add("uid=ada,ou=people," + s.suffix, {"objectClass": ["inetOrgPerson"], "cn": "Ada", "sn": "L"})

Its configuration is in cn=config, and changes at run time: `configure`.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # ldap3 imports by pyasn1's former names
    import ldap3

BINARY = shutil.which("slapd", path="/usr/sbin:/usr/lib/openldap:/usr/libexec:/usr/local/libexec:/sbin:/bin:/usr/bin")
SCHEMAS = Path("/etc/ldap/schema") if Path("/etc/ldap/schema").is_dir() else Path("/etc/openldap/schema")
MODULES = next(
    (p for p in (Path("/usr/lib/ldap"), Path("/usr/lib64/openldap"), Path("/usr/lib/openldap")) if p.is_dir()), None
)

# draft-howard-rfc2307bis-02 section 4 has no groupOfMembers; the draft that SUSE and Red Hat ship does.
GROUP_OF_MEMBERS = (
    "( 1.3.6.1.4.1.99999.1.1 NAME 'groupOfMembers' SUP top STRUCTURAL MUST cn MAY ( member $ mail $ description ) )"
)
NS_ACCOUNT_LOCK = (
    "( 2.16.840.1.113730.3.1.610 NAME 'nsAccountLock' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )"
)
NS_PERSON = "( 1.3.6.1.4.1.99999.1.2 NAME 'lockable' SUP top AUXILIARY MAY ( nsAccountLock $ mail ) )"

CONFIG = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {folder}/slapd.pid
olcLogLevel: none

dn: cn=module,cn=config
objectClass: olcModuleList
cn: module
olcModulePath: {modules}
olcModuleLoad: back_mdb
olcModuleLoad: ppolicy
olcModuleLoad: syncprov

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

{includes}

dn: cn=test,cn=schema,cn=config
objectClass: olcSchemaConfig
cn: test
olcAttributeTypes: {ns_account_lock}
olcObjectClasses: {group_of_members}
olcObjectClasses: {ns_person}

dn: olcDatabase=config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: config
olcRootDN: cn=config
olcRootPW: {password}

dn: olcDatabase=mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: mdb
olcDbDirectory: {folder}/data
olcDbNoSync: TRUE
olcSuffix: {suffix}
olcRootDN: cn=root,{suffix}
olcRootPW: {password}
{access}
olcLimits: dn.exact="{reader}" size.prtotal=unlimited
olcDbMaxSize: 1073741824

dn: olcOverlay=ppolicy,olcDatabase={{1}}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcPPolicyConfig
olcOverlay: ppolicy
"""
SYNCPROV = """
dn: olcOverlay=syncprov,olcDatabase={1}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcSyncProvConfig
olcOverlay: syncprov
"""
ACCESS = ("to attrs=userPassword by anonymous auth by * none", "to * by users read by anonymous auth")
MISSING = None if BINARY and MODULES else "slapd is not installed"


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


class Slapd:
    """A running slapd; `url`, `bind_dn` and `password` are what a reader of it needs."""

    missing = MISSING
    """Why it cannot run here, or None."""

    def __init__(
        self, suffix: str = "dc=corp,dc=example", *, tls: tuple[str, str] | None = None, session_log: int | None = None
    ) -> None:
        """`tls`: PEM files of the certificate with its key, and of the authority; it then also speaks TLS and StartTLS.

        `session_log`: with the overlay syncprov, and so many deletions in its session log, which is kept in memory.
        """
        self.suffix = suffix
        self.bind_dn = f"cn=reader,{suffix}"
        self.password = "reader's pass"
        self.root_password = "root-secret"
        self.port = self.tls_port = 0
        self._tls = tls
        self._session_log = session_log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        assert self.missing is None, self.missing
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._install()
            stack.callback(self.stop)
            self.start()
            self.add(self.suffix, {"objectClass": ["dcObject", "organization"], "o": "Test"})
            reader = {"objectClass": ["organizationalRole", "simpleSecurityObject"], "userPassword": self.password}
            self.add(self.bind_dn, reader)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install(self) -> None:
        assert BINARY
        (self._folder / "data").mkdir()
        (self._folder / "config").mkdir()
        text = CONFIG.format(
            folder=self._folder,
            modules=MODULES,
            includes="\n\n".join(
                f"include: file://{SCHEMAS}/{x}.ldif" for x in ("core", "cosine", "inetorgperson", "nis")
            ),
            ns_account_lock=NS_ACCOUNT_LOCK,
            group_of_members=GROUP_OF_MEMBERS,
            ns_person=NS_PERSON,
            password=self.root_password,
            suffix=self.suffix,
            reader=self.bind_dn,
            access="\n".join(f"olcAccess: {rule}" for rule in ACCESS),
        )
        if self._tls:
            files = f"olcTLSCertificateFile: {self._tls[0]}\nolcTLSCertificateKeyFile: {self._tls[0]}\n"
            text = text.replace("olcLogLevel:", f"{files}olcTLSCACertificateFile: {self._tls[1]}\nolcLogLevel:", 1)
        if self._session_log is not None:
            text += SYNCPROV + (f"olcSpSessionlog: {self._session_log}\n" if self._session_log else "")
        ldif = self._folder / "config.ldif"
        ldif.write_text(text)
        done = subprocess.run(
            [BINARY, "-T", "add", "-n", "0", "-F", str(self._folder / "config"), "-l", str(ldif)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it: on a free port, or again on the one it had."""
        assert BINARY and self._process is None
        again = self.port != 0
        for _ in range(20):
            if not again:
                self.port, self.tls_port = _free_ports()
            urls = f"{self.url} ldaps://127.0.0.1:{self.tls_port}" if self._tls else self.url
            # -d 0 keeps it in the foreground, our child
            command = [BINARY, "-d", "0", "-F", str(self._folder / "config"), "-h", urls]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._listens():
                return
            self.stop()
        raise RuntimeError("slapd does not start")

    def _listens(self) -> bool:
        assert self._process
        until = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self._process.poll() is None
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """End it, and keep its content for another `start`."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def _bound(self, user: str) -> Iterator[Any]:
        server = ldap3.Server("127.0.0.1", port=self.port, get_info=ldap3.NONE)
        connection = ldap3.Connection(
            server, user, self.root_password, auto_bind=True, raise_exceptions=True, check_names=False
        )
        try:
            yield connection
        finally:
            connection.unbind()

    def add(self, dn: str, attributes: Mapping[str, Any]) -> None:
        """Add an entry; `objectClass` is one of `attributes`."""
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.add(dn, attributes=dict(attributes))

    def add_all(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """`add`, for many, over one connection."""
        with self._bound(f"cn=root,{self.suffix}") as connection:
            for dn, attributes in entries:
                connection.add(dn, attributes=dict(attributes))

    def modify(self, dn: str, changes: Mapping[str, Any]) -> None:
        """Replace attributes: a name with a list of values, or with [] to remove it."""
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.modify(dn, {name: [(ldap3.MODIFY_REPLACE, list(values))] for name, values in changes.items()})

    def rename(self, dn: str, rdn: str) -> None:
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.modify_dn(dn, rdn)

    def move(self, dn: str, parent: str) -> None:
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.modify_dn(dn, dn.partition(",")[0], new_superior=parent)

    def delete(self, dn: str) -> None:
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.delete(dn)

    def get(self, dn: str, name: str) -> str:
        """The first value of an attribute, operational ones too."""
        with self._bound(f"cn=root,{self.suffix}") as connection:
            connection.search(dn, "(objectClass=*)", "BASE", attributes=[name])
            value: bytes = connection.response[0]["raw_attributes"][name][0]
            return value.decode()

    def has(self, dn: str) -> bool:
        """Whether there is such an entry."""
        with self._bound(f"cn=root,{self.suffix}") as connection:
            try:
                return bool(connection.search(dn, "(objectClass=*)", "BASE"))
            except ldap3.core.exceptions.LDAPNoSuchObjectResult:
                return False

    @contextlib.contextmanager
    def configured(self, **changes: Sequence[str]) -> Iterator[None]:
        """Replace attributes of the database's configuration (olcLimits, olcAccess) until the end of the block."""
        database = "olcDatabase={1}mdb,cn=config"
        with self._bound("cn=config") as connection:
            connection.search(database, "(objectClass=*)", "BASE", attributes=list(changes))
            found = connection.response[0]["attributes"]
            before = {name: list(found.get(name) or []) for name in changes}
        try:
            self._configure(database, changes)
            yield
        finally:
            self._configure(database, before)

    def _configure(self, dn: str, changes: Mapping[str, Sequence[str]]) -> None:
        with self._bound("cn=config") as connection:
            connection.modify(dn, {name: [(ldap3.MODIFY_REPLACE, list(values))] for name, values in changes.items()})
