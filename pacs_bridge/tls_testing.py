"""Certificates for tests and benchmarks: the authority of a hospital that does not exist, and nodes it vouches for."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import trustme

from pacs_bridge.settings import Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """An authority, and a maker of the files that each of its nodes is given, in a folder of its own."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def node(
        self, name: str = "127.0.0.1", *, until: datetime | None = None, authority: trustme.CA | None = None
    ) -> Tls:
        """Return the settings of a node whose certificate names a host or address; it trusts this hospital.

        ``until``: when the certificate expires; ``authority``: who vouches for it instead of the hospital's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / f"node{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        issued = (authority or self.authority).issue_cert(name, not_after=until)
        tls = Tls(
            certificate=folder / "node.pem", private_key=folder / "node.key", authorities=folder / "authorities.pem"
        )
        (folder / "node.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        (folder / "node.key").write_bytes(issued.private_key_pem.bytes())
        (folder / "node.key").chmod(0o600)
        self.authority.cert_pem.write_to_path(folder / "authorities.pem")
        return tls
