"""``mesh-pki``: make a mesh's certificate authorities, issue to servers and operators, look at certificates."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from mesh.kit.clock import WallClock
from mesh.kit.errors import MeshError
from mesh.kit.settings import parse_timedelta
from pki import names
from pki.authority import Authority, create_issuing, create_root, load_authority, serial_hex, to_pem
from pki.bundle import identity_of, issued_by, load_certificates, make_bundle, pin_of
from pki.csr import key_to_pem, new_key
from pki.files import make_private_dir, write_atomic, write_private
from pki.names import Identity, Kind
from pki.policy import LEAF_LIFETIME, MAX_LEAF_LIFETIME, SIGNED_BY, Role

ISSUABLE = (Kind.CONTROL_PLANE, Kind.GATEWAY, Kind.OPERATOR)  # nodes join with a token instead


class Refused(Exception):
    """The command cannot be done; the text is the one line that is shown."""


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything here does; ``--help`` has the usage."""

    def error(self, message: str) -> NoReturn:
        raise Refused(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done. 2: refused, with one line on standard error."""
    now = WallClock().now()
    try:
        options = _parser().parse_args(arguments)
        if options.command == "init":
            print(init(options.dir, trust_domain=options.trust_domain, now=now))
        elif options.command == "issue":
            for line in issue(options, now=now):
                print(line)
        else:
            for line in inspect(options.file, now=now):
                print(line)
    except (Refused, MeshError) as exc:
        return _say(str(exc))
    except OSError as exc:
        return _say(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))
    return 0


def init(directory: Path, *, trust_domain: str, now: datetime) -> str:
    """Make a root and the three issuing CAs in the folder. The answer is the pin of the root."""
    names.check_trust_domain(trust_domain)
    make_private_dir(directory)
    made = [
        directory / f"{name}.{kind}" for name in ("root", *(f"{r}-ca" for r in Role)) for kind in ("crt", "key")
    ]
    made += [directory / "trust-bundle.pem", directory / "trust-domain"]
    _must_not_exist(made)
    root_key = new_key()
    root = create_root(root_key, trust_domain=trust_domain, now=now)
    # The root comes last: a folder with one is complete, and an interrupted one can be seen and removed.
    trusted = [root]
    for role in Role:
        key = new_key()
        certificate = create_issuing(key.public_key(), role, root=root, root_key=root_key, now=now)
        write_private(directory / f"{role}-ca.key", key_to_pem(key))
        write_atomic(directory / f"{role}-ca.crt", to_pem(certificate))
        if role is Role.CONTROL:
            trusted.append(certificate)
    write_atomic(directory / "trust-bundle.pem", make_bundle(trusted).pem.encode())
    write_atomic(directory / "trust-domain", f"{trust_domain}\n".encode())
    write_private(directory / "root.key", key_to_pem(root_key))
    write_atomic(directory / "root.crt", to_pem(root))
    return pin_of(root)


def issue(options: argparse.Namespace, *, now: datetime) -> list[str]:
    """Make a key and a certificate for a server or an operator, and say whose and how long."""
    kind: Kind = options.kind
    ttl: timedelta = LEAF_LIFETIME[kind] if options.ttl is None else options.ttl
    if not timedelta(0) < ttl <= MAX_LEAF_LIFETIME:
        raise Refused(f"--ttl: more than nothing, and at most {MAX_LEAF_LIFETIME.days} days")
    authority: Authority = load_authority(options.dir, SIGNED_BY[kind])
    identity = Identity(kind, options.id, authority.trust_domain)
    out: Path = options.out
    files = [out / "tls.crt", out / "tls.key", out / "trust-bundle.pem"]
    if not options.replace:
        _must_not_exist(files)
    key = new_key()
    issued = authority.sign(key.public_key(), identity, now=now, ttl=ttl, dns_names=tuple(options.dns))
    bundle = (options.dir / "trust-bundle.pem").read_bytes()
    make_private_dir(out)
    write_private(out / "tls.key", key_to_pem(key))
    write_atomic(out / "tls.crt", issued.chain_pem.encode())
    write_atomic(out / "trust-bundle.pem", bundle)
    return [f"{identity} until {issued.not_after:%Y-%m-%d %H:%M:%S} UTC, serial {issued.serial_hex}"]


def inspect(file: Path, *, now: datetime) -> list[str]:
    """Say what the certificates in a PEM file are. Keys in it are not looked at."""
    lines = []
    for certificate in load_certificates(file.read_bytes()):
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        state = "not yet valid" if now < start else "expired" if now >= end else "valid"
        try:
            name = str(identity_of(certificate))
        except MeshError:  # a CA, or none of ours
            name = certificate.subject.rfc4514_string()
        lines.append(f"{name}: {state}, {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC")
        lines.append(f"  serial {serial_hex(certificate)}")
        lines.append(f"  {'pin' if issued_by(certificate, certificate) else 'key'} {pin_of(certificate)}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mesh-pki", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="init | issue | inspect")

    command = commands.add_parser("init", help="make the root and the issuing CAs; prints the CA pin")
    command.add_argument("--dir", type=Path, required=True, help="folder for keys and certificates")
    command.add_argument("--trust-domain", default=names.DEFAULT_TRUST_DOMAIN, help="default: %(default)s")

    command = commands.add_parser("issue", help="issue a certificate to a server or an operator")
    command.add_argument("kind", type=_kind, metavar="|".join(ISSUABLE))
    command.add_argument("--id", required=True, help="who it is for")
    command.add_argument("--dir", type=Path, required=True, help="folder made by init")
    command.add_argument(
        "--out", type=Path, required=True, help="folder for tls.crt, tls.key and trust-bundle.pem"
    )
    command.add_argument(
        "--ttl", type=_ttl, help="how long, for example 8h (default: 24h, operators 8h; at most 30d)"
    )
    command.add_argument(
        "--dns", action="append", default=[], help="another DNS name for a server; may be repeated"
    )
    command.add_argument("--replace", action="store_true", help="renew in place what is there")

    command = commands.add_parser("inspect", help="say what the certificates in a file are")
    command.add_argument("file", type=Path)
    return parser


def _kind(text: str) -> Kind:
    if text not in ISSUABLE:
        raise argparse.ArgumentTypeError(f"one of {', '.join(ISSUABLE)}; nodes join with a token")
    return Kind(text)


def _ttl(text: str) -> timedelta:
    try:
        return parse_timedelta(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r} (8h, 30d)") from None


def _must_not_exist(files: list[Path]) -> None:
    for file in files:
        if file.exists():
            raise Refused(f"{file}: exists already, and is left as it is")


def _say(problem: str) -> int:
    print(f"mesh-pki: {' '.join(problem.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
