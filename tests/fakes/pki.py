"""A mesh's certificate authorities in memory, made by the real code; certificates for whoever a test needs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509

from pki.authority import Authority, create_issuing, create_root, to_pem
from pki.bundle import make_bundle, pin_of
from pki.csr import PrivateKey, key_to_pem, new_key
from pki.names import DEFAULT_TRUST_DOMAIN, Identity, Kind
from pki.policy import SIGNED_BY, Role
from pki.tls import TlsFiles


@dataclass(slots=True)
class Mesh:
    """Root and issuing CAs of one trust domain."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    root_key: PrivateKey = field(default_factory=new_key)
    root: x509.Certificate = field(init=False)
    authorities: dict[Role, Authority] = field(init=False)

    def __post_init__(self) -> None:
        self.root = create_root(self.root_key, trust_domain=self.trust_domain, now=self.now)
        self.authorities = {}
        for role in Role:
            key = new_key()
            certificate = create_issuing(
                key.public_key(), role, root=self.root, root_key=self.root_key, now=self.now
            )
            self.authorities[role] = Authority(certificate, key, self.root)

    @property
    def pin(self) -> str:
        return pin_of(self.root)

    @property
    def bundle_pem(self) -> str:
        """What clients trust servers by."""
        return make_bundle([self.root, self.authorities[Role.CONTROL].certificate]).pem

    def ca_pem(self, role: Role) -> bytes:
        return to_pem(self.authorities[role].certificate)

    def identity(self, kind: Kind, name: str = "one") -> Identity:
        return Identity(kind, name, self.trust_domain)

    def files(self, kind: Kind, name: str = "one", *, ttl: timedelta = timedelta(hours=1)) -> TlsFiles:
        """A key and certificate for that identity, with the bundle: what ``tls.load_tls`` gives."""
        key = new_key()
        issued = self.authorities[SIGNED_BY[kind]].sign(
            key.public_key(), self.identity(kind, name), now=datetime.now(UTC), ttl=ttl
        )
        return TlsFiles(key_to_pem(key), issued.chain_pem.encode(), self.bundle_pem.encode())
