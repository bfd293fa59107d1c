"""C2PA manifests: signed statements in a video of what it was made from and how.

Content Credentials: C2PA Technical Specification 2.2. A manifest says that the input was opened (`c2pa.opened`, with
the input as the ingredient `parentOf`) and that music was added (`c2pa.edited`), and has a hash of the file. No
timestamp authority, and no other host, is contacted.
"""

from __future__ import annotations

import hashlib
import io
import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import v2m
from v2m.core.atomic import publish, temporary_sibling
from v2m.core.disk_space import check_space
from v2m.core.errors import UsageError, error_text
from v2m.media.verify import fingerprint_streams

if TYPE_CHECKING:
    from c2pa import Builder, Context, Signer
    from cryptography.x509 import Certificate

FORMATS = {".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".avi": "video/avi"}
OPAQUE = "application/octet-stream"  # an ingredient whose own manifests cannot be read
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
ALGORITHMIC, TRAINED = "algorithmicMedia", "trainedAlgorithmicMedia"
COMPOSITE = "compositeWithTrainedAlgorithmicMedia"  # what was filmed, with what a trained model made
UNTRUSTED = "signingCredential.untrusted"  # the certificate leads to no root that the reader trusts
EKUS = (  # extended key usages of signers; the SDK itself accepts email protection only
    "1.3.6.1.4.1.62558.2.1",  # C2PA claim signing
    "1.3.6.1.5.5.7.3.36",  # document signing
    "1.3.6.1.5.5.7.3.4",  # email protection
    "1.3.6.1.4.1.311.76.59.1.9",  # C2PA signing of Microsoft
)
SETTINGS: dict[str, Any] = {
    "trust": {"trust_config": "\n".join(EKUS)},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": []},
    "builder": {"thumbnail": {"enabled": False}},
}
NEEDS = "needs RSA of 2048 bits or more, an extended key usage as in docs/provenance.md, and not to be expired"


@dataclass(frozen=True)
class MusicOrigin:
    """Origin of the music: IPTC's digital source type, and the shipped recipe, None for another."""

    digital_source: str = TRAINED
    recipe: str | None = None


@dataclass(frozen=True)
class ManifestReport:
    """Findings of a reader in a signed file.

    Args:
        state: "Trusted"; "Valid" where all is in order but the certificate leads to no trusted root; or "Invalid".
        problems: Codes of the specification for what is not in order, such as "assertion.bmffHash.mismatch"; where the
            manifest cannot be read at all, the reader's message.
        label: Name of the manifest; empty where it cannot be read.
        manifest: The manifest as JSON values.
    """

    state: str
    problems: tuple[str, ...]
    label: str
    manifest: Mapping[str, Any]

    @property
    def is_intact(self) -> bool:
        """True where signature and hashes are valid, whoever signed."""
        return set(self.problems) <= {UNTRUSTED} and self.state != "Invalid"

    @property
    def actions(self) -> list[dict[str, Any]]:
        """The actions in their order."""
        assertions = self.manifest.get("assertions", [])
        return [
            act for part in assertions if part["label"].startswith("c2pa.actions") for act in part["data"]["actions"]
        ]


@dataclass(frozen=True)
class C2paCredentials:
    """Certificate and private key of the signer.

    Args:
        certificate: PEM file with the signer's certificate and after it those up to its root.
        key: PEM file with the private key of the first, without a password: EC, RSA or Ed25519.
    """

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "certificate", Path(self.certificate))
        object.__setattr__(self, "key", Path(self.key))

    def validate(self) -> ManifestReport:
        """Sign half a second of silence, and return its report.

        Raises UsageError where that signature, and so any, is not valid.
        """
        from c2pa import C2paError

        with io.BytesIO() as silence, io.BytesIO() as signed:
            with wave.open(silence, "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
                file.writeframes(bytes(8000))
            silence.seek(0)
            created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPES + ALGORITHMIC}
            builder = _context_builder({"assertions": [_actions([created])]})
            try:
                builder.sign(self.signer(), "audio/wav", silence, signed)
                signed.seek(0)
                report = _read(signed, "audio/wav")
            except C2paError as error:
                raise UsageError(f"`c2pa`: {self.certificate} cannot sign: {error_text(error)} ({NEEDS})") from error
            if not report.is_intact:
                problems = ", ".join(report.problems)
                raise UsageError(f"`c2pa`: what {self.certificate} signs is not valid: {problems} ({NEEDS})")
        return report

    def signer(self) -> Signer:
        """Return a signer without a timestamp authority; UsageError where file, kind of key or pair is wrong."""
        from c2pa import C2paSignerInfo, C2paSigningAlg, Signer
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        certificates, key = self._certificates(), self._private_key()
        public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if key.public_key().public_bytes(*public) != certificates[0].public_key().public_bytes(*public):
            raise UsageError(f"`c2pa`: {self.key} is not the key of the first certificate in {self.certificate}")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
        return Signer.from_info(C2paSignerInfo(C2paSigningAlg[self._algorithm(key)], chain, pem, None))

    def sha256(self) -> str:
        """SHA-256 of the signer's certificate (DER), in hex."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return hashlib.sha256(self._certificates()[0].public_bytes(Encoding.DER)).hexdigest()

    def _certificates(self) -> list[Certificate]:
        from cryptography.x509 import load_pem_x509_certificates

        try:
            return load_pem_x509_certificates(_read_bytes(self.certificate))
        except ValueError as error:
            raise UsageError(f"`c2pa`: {self.certificate} holds no certificate in PEM ({error_text(error)})") from error

    def _private_key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return load_pem_private_key(_read_bytes(self.key), None)
        except TypeError as error:
            cure = "write it without one, `openssl pkey -in KEY -out OTHER`"
            raise UsageError(f"`c2pa`: {self.key} has a password: {cure}") from error
        except ValueError as error:
            raise UsageError(f"`c2pa`: {self.key} holds no private key in PEM ({error_text(error)})") from error

    def _algorithm(self, key: Any) -> str:
        """Name of the signature for a key (specification, section 13.2)."""
        curves = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
        kind = type(key).__name__.lower()
        if "ed25519" in kind:
            return "ED25519"
        if "rsa" in kind:
            return "PS256"
        name = getattr(getattr(key, "curve", None), "name", kind)
        if name not in curves:
            raise UsageError(f"`c2pa`: {self.key} is a key of kind {name}: give one of EC (P-256), RSA or Ed25519")
        return curves[name]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"`c2pa`: {path} cannot be read ({error.strerror})") from error


def signed_format(out: Path) -> str:
    """Return the MIME type of an output that can be signed; raise UsageError for another container."""
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        cure = "score it alone with `out` NAME.mp4, .m4v, .mov or .avi, or leave out `c2pa`"
        raise UsageError(f"{out.name}: {out.suffix} holds no C2PA manifest: {cure}")
    return kind


def sign(path: Path, source: Path, credentials: C2paCredentials, origin: MusicOrigin) -> dict[str, Any]:
    """Replace a video, made from `source`, by a signed copy; return a summary for the sidecar.

    The copy is read back before it takes the place: its signature and hashes must be valid, and its pictures and sound
    those of `path`. Raises RuntimeError where they are not, OSError where the disk is full.
    """
    from c2pa import C2paError

    kind = signed_format(path)
    check_space(0, path.stat().st_size, path.parent)
    with temporary_sibling(path) as temporary:
        signed = _Output(io.FileIO(temporary, "r+"))
        try:
            with signed, path.open("rb") as unsigned:
                _manifest_builder(source, origin).sign(credentials.signer(), kind, unsigned, signed)
        except C2paError as error:
            if signed.error is not None:
                raise signed.error from error
            raise RuntimeError(f"the video was not signed: {error_text(error)}") from error
        report = read_manifest(temporary, kind)
        if not report.is_intact:
            raise RuntimeError(f"the video was not signed: what was written has {', '.join(report.problems)}")
        if fingerprint_streams(temporary) != fingerprint_streams(path):
            raise RuntimeError("the video was not signed: its streams were changed by that")
        publish(temporary, path)
    return {
        "manifest": report.label,
        "claim_generator": _generator(),
        "signer": report.manifest["signature_info"].get("common_name"),
        "certificate_sha256": credentials.sha256(),
        "algorithm": report.manifest["signature_info"]["alg"],
        "validation": report.state,
        "actions": [
            {name: act[name] for name in ("action", "digitalSourceType") if name in act} for act in report.actions
        ],
        "input": _input_id(source),
    }


def read_manifest(path: Path, kind: str | None = None) -> ManifestReport:
    """Read and validate the newest manifest of a file.

    `kind` is its MIME type, by its suffix if not given. A damaged manifest is "Invalid". Raises UsageError where the
    file has no manifest, or cannot hold one.
    """
    from c2pa import C2paError

    kind = kind or signed_format(path)
    try:
        with path.open("rb") as file:
            return _read(file, kind)
    except C2paError as error:
        if not str(error).startswith("ManifestNotFound"):
            return ManifestReport("Invalid", (error_text(error, 160),), "", {})
        raise UsageError(f"{path} has no C2PA manifest") from error


class _Output(io.BufferedRandom):
    """File that keeps the error of a write: the SDK reports only that there was one."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _read(file: Any, kind: str) -> ManifestReport:
    from c2pa import Reader

    with Reader(kind, file, context=_context()) as reader:
        values = json.loads(reader.json())
    label = values["active_manifest"]
    problems = tuple(status["code"] for status in values.get("validation_status", ()))
    if label not in values["manifests"]:
        return ManifestReport("Invalid", (*problems, f"there is no manifest {label}"), label, {})
    return ManifestReport(values["validation_state"], problems, label, values["manifests"][label])


def _context() -> Context:
    from c2pa import Context

    return Context.from_dict(SETTINGS)


def _context_builder(definition: Mapping[str, Any]) -> Builder:
    from c2pa import Builder

    return Builder({"claim_generator_info": [_generator()], **definition}, context=_context())


def _manifest_builder(source: Path, origin: MusicOrigin) -> Builder:
    """Return a builder with the input as its parent, known by its hash, not by path or name."""
    from c2pa import C2paError

    trained = origin.digital_source != ALGORITHMIC
    parameters = {
        "v2m.music.digitalSourceType": SOURCE_TYPES + origin.digital_source,
        "v2m.recipe": origin.recipe or "custom",
    }
    edited = {
        "action": "c2pa.edited",
        "description": f"Music {'generated by a trained model' if trained else 'composed by an algorithm'} was added.",
        "digitalSourceType": SOURCE_TYPES + (COMPOSITE if trained else ALGORITHMIC),
        "softwareAgent": _generator(),
        "parameters": parameters,
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["input"]}}
    definition = {"title": "Video with music", "assertions": [_actions([opened, edited])]}
    ingredient = {
        "title": "Input video", "relationship": "parentOf", "label": "input", "instance_id": _input_id(source),
    }  # fmt: skip
    try:
        return _with_ingredient(definition, ingredient, source, FORMATS.get(source.suffix.lower(), OPAQUE))
    except C2paError:  # the file is not what its suffix says
        return _with_ingredient(definition, ingredient, source, OPAQUE)


def _with_ingredient(definition: Mapping[str, Any], ingredient: Mapping[str, Any], source: Path, kind: str) -> Builder:
    builder = _context_builder(definition)
    with source.open("rb") as file:
        builder.add_ingredient(dict(ingredient), kind, file)
    return builder


def _actions(actions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an assertion that the signer makes (`created`), not one that was gathered from elsewhere."""
    return {"label": "c2pa.actions.v2", "created": True, "data": {"actions": actions}}


def _input_id(source: Path) -> str:
    with source.open("rb") as file:
        return f"urn:sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _generator() -> dict[str, str]:
    return {"name": "v2m", "version": v2m.__version__}
