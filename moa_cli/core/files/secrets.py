"""Recognises files that seem to contain secrets, by their name or their content.

It protects against a mistake of the user, but does not find every secret. For example, it does not
find a password in a sentence.
"""

from __future__ import annotations

import re
from pathlib import Path

from moa_cli.core import paths

_SETTINGS, _KEY, _LOGINS, _STATE = (
    "settings with keys",
    "a private key",
    "passwords or tokens",
    "values that may be secret",
)
# The file types in which a name such as "passwords" means that there are secrets. Source code with
# such a name contains none.
_DATA = r"\.(?:json|toml|ya?ml|ini|txt|env|conf|cfg|csv|xml|properties|db)"
# Patterns for the whole file name in lower case, and the kind of secret.
_NAMES = (
    (r"\.env(?:rc|\..+)?|.+\.env", _SETTINGS),
    (r"id_(?:rsa|dsa|ecdsa|ed25519|xmss|\w+_sk)(?:\..+)?", _KEY),
    (r".+\.(?:key|ppk|p8|p12|pfx|jks|keystore|kdbx)", _KEY),
    (r"[._]netrc|\.pgpass|\.my\.cnf|\.mylogin\.cnf|\.htpasswd|\.git-credentials", _LOGINS),
    (r"\.(?:pypirc|npmrc|yarnrc|dockercfg|boto|s3cfg|vault-token|terraformrc|condarc)", _LOGINS),
    (rf"\.?(?:credentials?|secrets?|passwords?|tokens?)(?:{_DATA})?", _LOGINS),
    (rf".+[-_.](?:credentials?|secrets?|passwords?){_DATA}", _LOGINS),
    (rf"(?:.*[-_.])?api[-_]?keys?(?:{_DATA})?|kubeconfig(?:{_DATA})?|.+\.kubeconfig", _LOGINS),
    (r"client_secrets?.*\.json|service[-_]?account.*\.json|auth\.json", _LOGINS),
    (r"\.?passwd|shadow", _LOGINS),
    (r".+\.tfstate(?:\.backup)?|.+\.tfvars|wp-config\.php", _STATE),
    (r"\.\w+_history", _STATE),
)
# Names of files that only look secret: examples of settings, and public keys.
_HARMLESS = re.compile(
    r".*[._-](?:example|examples|sample|template|tmpl|dist|defaults?)(?:\.env)?|.+\.pub"
)
# Folders of keys and logins; and the files in them that are not secret.
_FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store"})
_PUBLIC = frozenset({"known_hosts", "known_hosts.old", "authorized_keys", "allowed_signers"})
# The beginning of a private key in PEM, also within a string of JSON; and tokens with known
# prefixes.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\r?\n|\\n)+"
    rb"[A-Za-z0-9+/=:-]{8}|\APuTTY-User-Key-File-"
)
_TOKEN = re.compile(
    rb"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}"
    rb"|glpat-[\w-]{20}|xox[abprs]-[\w-]{20}|AIza[\w-]{35}|sk-(?:ant-|or-|proj-)[\w-]{32}"
    rb"|sk-[A-Za-z0-9]{32}|gsk_[A-Za-z0-9]{40}|hf_[A-Za-z0-9]{30}|xai-[A-Za-z0-9]{40}"
    rb"|pplx-[A-Za-z0-9]{40}|npm_[A-Za-z0-9]{36})"
)
_LOOKED_AT = 2_000_000


def secret_kind(path: Path, data: bytes = b"") -> str | None:
    """The kind of secret that a file seems to contain, in a few words such as `a private key`; None
    if it does not seem to contain one.

    For a link, both its own name and the name of its target count.
    """
    try:
        places = dict.fromkeys((path, paths.resolved(path)))
    except OSError:
        places = {path: None}
    for place in places:
        if (kind := _by_name(place)) is not None:
            return kind
    start = data[:_LOOKED_AT]
    if _PRIVATE_KEY.search(start):
        return _KEY
    token = _TOKEN.search(start)
    return _LOGINS if token and b"EXAMPLE" not in token[0] else None


def _by_name(path: Path) -> str | None:
    name = path.name.lower()
    if _HARMLESS.fullmatch(name):
        return None
    if name not in _PUBLIC and _FOLDERS.intersection(path.parts[:-1]):
        return _LOGINS
    return next((kind for pattern, kind in _NAMES if re.fullmatch(pattern, name)), None)
