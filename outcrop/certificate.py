"""A certificate for this machine's own names, made in the home folder."""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path

from outcrop.clock import now

# Browsers refuse certificates that live longer than this.
LIFE = timedelta(days=397)


def certificate(home: Path, host: str) -> tuple[Path, Path]:
    """(certificate, key) as PEM files, made when there are none or they end within a day.

    It is self-signed: clients are told to trust it with AWS_CA_BUNDLE, which `outcrop env` prints.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    certificate_path, key_path = home / "tls-certificate.pem", home / "tls-key.pem"
    if certificate_path.exists() and key_path.exists():
        present = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        if present.not_valid_after_utc > now() + timedelta(days=1):
            return certificate_path, key_path
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Outcrop on this machine")])
    addresses = {"127.0.0.1", "::1"}
    names = {"localhost", "*.localhost"}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.add(host)
    alternatives = [x509.DNSName(one) for one in sorted(names)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + LIFE)
        .add_extension(
            x509.SubjectAlternativeName(
                [*alternatives, *(x509.IPAddress(ipaddress.ip_address(one)) for one in sorted(addresses))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return certificate_path, key_path
