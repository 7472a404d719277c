"""Keys, certificates and tokens of one test cluster. They live as long as its state folder."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.places import API_SERVER, KUBERNETES_SERVICE, NODE, NODE_ADDRESS

USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
}
"""Who talks to the API server: file name -> (user, group)."""

_DAYS = dt.timedelta(days=30)


def make(folder: Path) -> None:
    """Write ``ca.crt``, ``apiserver.{crt,key}``, ``kubelet-client.{crt,key}``, ``service-accounts.{key,pub}``,
    ``tokens.csv`` and one ``USER.kubeconfig`` for each of :data:`USERS`. Does nothing when they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("rankwise-test-cluster", authority_key, None, authority_key)
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
    names = [x509.DNSName(name) for name in _service_names("kubernetes", "default")] + [x509.DNSName("localhost")]
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in (KUBERNETES_SERVICE, NODE_ADDRESS, "127.0.0.1")]
    for file, user, group, alternatives in (
        ("apiserver", "kube-apiserver", "", [*names, *addresses]),
        ("kubelet-client", "kube-apiserver", "system:masters", []),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(user, key, authority, authority_key, group, alternatives)
        _write(folder / f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        _write(folder / f"{file}.key", _private(key))
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(folder / "service-accounts.key", _private(signing))
    public = signing.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(folder / "service-accounts.pub", public)
    lines = []
    for file, (user, group) in USERS.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{file},"{group}"')
        _write(folder / f"{file}.kubeconfig", kubeconfig(folder / "ca.crt", token).encode())
    _write(folder / "tokens.csv", "\n".join(lines).encode() + b"\n")
    _write(folder / "done", b"")


def kubeconfig(authority: Path, token: str) -> str:
    """A kubeconfig (JSON is YAML)."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": API_SERVER, "certificate-authority": str(authority)}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        },
        indent=1,
    )


def _service_names(service: str, namespace: str) -> list[str]:
    parts = [service, namespace, "svc", "cluster", "local"]
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    organization: str = "",
    alternatives: list[x509.GeneralName] | None = None,
) -> x509.Certificate:
    """A certificate; an authority's own when ``issuer`` is None."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _DAYS)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
