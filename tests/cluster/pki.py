"""Keys, certificates and kubeconfigs of one cluster, made with openssl."""

from __future__ import annotations

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import run

# A cluster lives for hours; a long life spares one that is kept a surprise.
VALID_DAYS = 365


@dataclass(frozen=True)
class Identity:
    """Somebody with a certificate.

    Attributes
    ----------
    file
        Base name of the key and certificate files.
    user
        Common name; the user name in Kubernetes.
    group
        Organization; the group in Kubernetes.
    names
        Subject alternative names, such as ``IP:127.0.0.1``, for a server.
    """

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()


ADMIN = Identity("admin", "kubernetes-admin", "system:masters")
CONTROLLER_MANAGER = Identity("controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "system:kube-scheduler")
PROXY = Identity("proxy", "system:kube-proxy")


def kubelet_identity(node: str) -> Identity:
    """Return the kubelet's identity, as the Node authorizer wants it."""
    return Identity("kubelet", f"system:node:{node}", "system:nodes")


def api_server_identity(addresses: list[str]) -> Identity:
    """Return the API server's identity with everything it is called inside and outside."""
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += ["kubernetes.default.svc.cluster.local", "localhost"]
    subjects = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    return Identity("apiserver", "kube-apiserver", names=tuple(subjects))


def create(folder: Path, identities: list[Identity]) -> None:
    """Make an authority (``ca``), a service-account key (``service-account``) and certificates.

    Raises
    ------
    CommandError
        openssl failed.
    """
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sign = ["openssl", "req", "-x509", *curve, "-days", str(VALID_DAYS)]
    subject = ["-subj", "/CN=modelrollout-test-cluster"]
    run([*sign, *subject, "-keyout", folder / "ca.key", "-out", folder / "ca.crt"])
    run(["openssl", "genrsa", "-out", folder / "service-account.key", "2048"])

    def certify(identity: Identity) -> None:
        group = f"/O={identity.group}" if identity.group else ""
        usage = "serverAuth,clientAuth" if identity.names else "clientAuth"
        extensions = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={usage}"]
        if identity.names:
            extensions.append(f"subjectAltName={','.join(identity.names)}")
        key, certificate = folder / f"{identity.file}.key", folder / f"{identity.file}.crt"
        run(
            [
                *sign,
                *(word for extension in extensions for word in ("-addext", extension)),
                *("-subj", f"{group}/CN={identity.user}"),
                *("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"),
                *("-keyout", key, "-out", certificate),
            ]
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(certify, identities))
    for key in folder.glob("*.key"):
        key.chmod(0o600)


def write_kubeconfig(path: Path, pki: Path, identity: Identity, server: str, name: str) -> None:
    """Write a kubeconfig that holds everything it needs.

    Parameters
    ----------
    path
        The file to write.
    pki
        Folder of keys and certificates.
    identity
        Whose it is.
    server
        URL of the API server.
    name
        Name of cluster and context.
    """

    def data(file: str) -> str:
        return b64encode((pki / file).read_bytes()).decode()

    user = {
        "client-certificate-data": data(f"{identity.file}.crt"),
        "client-key-data": data(f"{identity.file}.key"),
    }
    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": identity.user, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": identity.user}}],
        "current-context": name,
    }
    # JSON is YAML; kubectl reads both.
    path.write_text(json.dumps(document, indent=2))
    path.chmod(0o600)
