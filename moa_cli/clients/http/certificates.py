"""Which authorities are trusted: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else the
system's."""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from moa_cli.clients.transport import BadSetting

_HINT = "set it to a file of certificates (PEM), or unset it"
# Where Linux distributions keep their authorities, other than the place where Python's OpenSSL
# looks.
_ELSEWHERE = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def tls_context(environment: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """The TLS context with the trusted authorities. Made once, because it takes 20 ms.

    Raises BadSetting for an `SSL_CERT_FILE` or `SSL_CERT_DIR` that cannot be used.
    """
    environment = os.environ if environment is None else environment
    return _context(environment.get("SSL_CERT_FILE", ""), environment.get("SSL_CERT_DIR", ""))


@lru_cache
def _context(file: str, folders: str) -> ssl.SSLContext:
    if file or folders:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if file:
            _add_file(context, file)
        for folder in filter(None, folders.split(os.pathsep)):
            _add_folder(context, folder)
    else:
        context = _of_the_system()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _add_file(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise BadSetting(f"SSL_CERT_FILE: {file} holds no certificate", hint=_HINT) from None
    except OSError as error:
        raise BadSetting(f"SSL_CERT_FILE: {file}: {error.strerror}", hint=_HINT) from None


def _add_folder(context: ssl.SSLContext, folder: str) -> None:
    try:
        names = [file.name for file in Path(folder).iterdir()]
    except OSError as error:
        raise BadSetting(
            f"SSL_CERT_DIR: {folder}: {error.strerror}",
            hint="set it to a folder of certificates, or unset it",
        ) from None
    if not any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in names):
        raise BadSetting(
            f"SSL_CERT_DIR: {folder} holds no certificate under the name that OpenSSL looks for",
            hint=f"run `openssl rehash {folder}`, or unset it",
        )
    context.load_verify_locations(capath=folder)


def _of_the_system() -> ssl.SSLContext:
    if sys.platform in ("darwin", "win32"):
        # On macOS and Windows the system itself verifies a certificate; there is no file that
        # OpenSSL could read.
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ssl.create_default_context()
    for file in _ELSEWHERE:
        if Path(file).is_file():
            return ssl.create_default_context(cafile=file)
    # A small container has no authorities, so those of the package certifi are used.
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def why_untrusted(error: ssl.SSLError) -> tuple[str, str]:
    """Why TLS failed, in a few words, and what to do about it."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        if "WRONG_VERSION_NUMBER" in str(error) or "record layer" in str(error):
            return "TLS failed: the server does not use TLS", "does its address begin with http://?"
        return "TLS failed", "check the address: the server there refuses TLS"
    said = f"{error.verify_message} {error}".lower()
    if "expired" in said:
        return (
            "TLS failed: its certificate has expired",
            "check this machine's clock; if it is right, the certificate must be renewed",
        )
    if "not yet valid" in said:
        return (
            "TLS failed: its certificate is not valid yet",
            "check this machine's clock",
        )
    if "mismatch" in said or "not valid for" in said:
        return "TLS failed: its certificate is for another host", "check the address"
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if value := os.environ.get(variable):
            return (
                f"TLS failed: its certificate is signed by an authority that is not in {variable}",
                f"add the authority's certificate to {value}, or unset {variable}",
            )
    return (
        "TLS failed: its certificate is signed by an authority that is not trusted",
        "set SSL_CERT_FILE to a file with the authority's certificate (PEM)",
    )
