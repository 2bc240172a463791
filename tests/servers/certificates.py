"""An authority and certificates of its own for a test run, made by the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """PEM files.

    Attributes:
        authority: the certificate that clients trust.
        server: certificate and chain for 127.0.0.1 and localhost.
        key: the server's private key (PKCS#8).
        elsewhere, elsewhere_key: signed by the same authority, for another host name.
    """

    authority: Path
    server: Path
    key: Path
    elsewhere: Path
    elsewhere_key: Path


def make_certificates(directory: Path) -> Certificates:
    authority, authority_key = directory / "authority.pem", directory / "authority.key"
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", authority_key, "-out", authority, "-days", "2"),
        *("-subj", "/CN=Imagewire test authority"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )

    def signed(name: str, hosts: str) -> tuple[Path, Path]:
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-days", "2"),
            *("-CA", authority, "-CAkey", authority_key, "-CAcreateserial"),
            *("-extfile", extensions),
        )
        return certificate, key

    return Certificates(
        authority,
        *signed("server", "IP:127.0.0.1,DNS:localhost"),
        *signed("elsewhere", "DNS:elsewhere.example"),
    )


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr}")
