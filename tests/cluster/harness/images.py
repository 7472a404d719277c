"""Container images for the test cluster, built without Docker and without a registry.

Debian's buildah builds the project's own Dockerfiles, unedited, on a stand-in for ``python:3.11-slim-bookworm`` that
debootstrap makes; the archives are what ``ctr -n k8s.io images import`` takes. Everything lies in ``CACHE/buildah``:

    storage-KEY/  buildah's own storage with the cached layers; a new one when a Dockerfile, a lock or the base changes
    tmp/          half-made layers, and pip's downloads where the package index lets pip keep them
    base-KEY.tar  the base's root file system
    archives/     one file for each image, named by a hash of what went into it

Run by hand: ``python -m harness.images build --cache DIR --out DIR`` from tests/cluster, as root.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.places import CHECKOUT, HarnessError
from harness.transfer import send

VERSION = "0.1.0"
BASE_IMAGE = "localhost/python:3.11-slim-bookworm"
IMAGES = {f"localhost/rankwise-{name}:{VERSION}": f"images/{name}/Dockerfile" for name in ("suggestion", "trainer")}
SLOW_INPUTS = (*IMAGES.values(), "images/torch-cpu.lock", "images/suggestion/requirements.lock")
QUICK_INPUTS = (
    *("components", "pyproject.toml", "README.md", "requirements-models.lock", "images/trainer/requirements.lock"),
    ".dockerignore",
)
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

TORCH = os.environ.get("RANKWISE_IMAGES_TORCH", "pypi-cpu")
"""The Dockerfiles' argument: a test needs the CPU alone, and PyPI is what every build host reaches."""

_SUITE = "bookworm"
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_BASE_REVISION = 1  # grows when the way the base is made changes
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
# Not in an image of a container, or of the machine that made it: its mirror, its name, its resolver, its logs.
_NOT_IN_BASE = (
    "dev/*", "etc/apt/sources.list", "etc/hostname", "etc/resolv.conf", "usr/lib/python3*/EXTERNALLY-MANAGED",
    "usr/share/doc/*/[!c]*", "usr/share/info/*", "usr/share/locale/*", "usr/share/man/*",
    "var/cache/apt/*", "var/cache/debconf/*-old", "var/lib/apt/lists/*", "var/log/*",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with its storage, state and temporary files in folders of ours."""

    folder: Path
    """``CACHE/buildah``."""
    storage: Path
    """Images and cached layers."""

    def command(self, *arguments: str | Path) -> list[str]:
        """The words of ``buildah ARGUMENTS``."""
        places = ("--root", self.storage, "--runroot", self.storage / "run", "--storage-driver", "overlay")
        return [str(word) for word in ("buildah", *places, *arguments)]

    def run(self, *arguments: str | Path, check: bool = True) -> str:
        """Run ``buildah ARGUMENTS``; return its standard output.

        Raises:
            HarnessError: it failed; with the end of what it said.
        """
        command = self.command(*arguments)
        # buildah keeps the folders of `RUN --mount=type=cache` and half-made layers under TMPDIR.
        return _run(command, environment=os.environ | {"TMPDIR": str(self.folder / "tmp")}, check=check)

    def has(self, image: str) -> bool:
        """Whether the storage holds an image of this name."""
        return bool(self.run("images", "--quiet", "--filter", f"reference={image}", check=False).strip())

    def export(self, image: str, archive: Path) -> None:
        """Write an image as a docker archive with uncompressed layers; ``archive`` appears when it is whole."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part")
        part.unlink(missing_ok=True)
        self.run("push", "--quiet", image, f"docker-archive:{part}:{image}")
        part.rename(archive)


def build_images(cache: Path, say: Callable[[str], None] = print) -> str:
    """Build rankwise-suggestion and rankwise-trainer where something of theirs changed.

    Args:
        cache: the harness's cache folder, outside the checkout.
        say: takes one line for each step.

    Returns:
        A key of what went into them. They are in buildah's storage: :func:`send_images`, :func:`export_images`.
    """
    with _locked(cache) as folder:
        key = _content_key(TORCH, _base_key(), *_files([*SLOW_INPUTS, *QUICK_INPUTS]))[:16]
        buildah = _base(folder, say)
        built, state = folder / "built", f"{buildah.storage.name} {key}"
        if not built.exists() or built.read_text() != state:
            for image, dockerfile in IMAGES.items():
                say(f"building {image} (TORCH={TORCH})")
                buildah.run(
                    *("bud", "--layers", "--force-rm", "--quiet", "--tag", image, "--file", CHECKOUT / dockerfile),
                    *("--build-arg", f"BASE_IMAGE={BASE_IMAGE}", "--build-arg", f"TORCH={TORCH}"),
                    *_host_mounts(folder),
                    CHECKOUT,
                )
            built.write_text(state)
    return key


def send_images(cache: Path, known: Iterable[str], sink: IO[bytes]) -> None:
    """Write what :func:`build_images` built as an OCI image layout, less what the receiver has.

    Args:
        cache: the harness's cache folder.
        known: digests of the receiver's blobs.
        sink: takes the tar.
    """
    with _locked(cache) as folder:
        buildah = _base(folder, lambda line: None)
        send(
            lambda image, path: buildah.command("push", "--quiet", image, f"docker-archive:{path}:{image}"),
            IMAGES,
            known,
            sink,
        )


def export_images(cache: Path, out: Path) -> dict[str, Path]:
    """Write what :func:`build_images` built as docker archives; image name -> archive."""
    archives = {image: out / f"{image.rpartition('/')[2].replace(':', '-')}.tar" for image in IMAGES}
    with _locked(cache) as folder:
        buildah = _base(folder, lambda line: None)
        for image, archive in archives.items():
            buildah.export(image, archive)
    return archives


def build_simple(
    cache: Path,
    name: str,
    containerfile_text: str,
    context: Path,
    say: Callable[[str], None] = print,
    *,
    volumes: Sequence[str] = (),
) -> Path:
    """Build a small image of the harness.

    Args:
        cache: the harness's cache folder.
        name: with repository and tag, such as ``localhost/postgres:15``.
        containerfile_text: ``{base}`` in it stands for :data:`BASE_IMAGE`.
        context: folder of the files that it copies; all of them count for whether it has to be built anew.
        say: takes one line for each step.
        volumes: what else the build borrows from its host, as buildah's ``--volume`` takes it.

    Returns:
        The archive.
    """
    with _locked(cache) as folder:
        key = _content_key(name, containerfile_text, _base_key(), *_files(["."], context))
        archive = _archive(folder, name, key)
        if archive.exists():
            return archive
        buildah = _base(folder, say)
        say(f"building {name}")
        with tempfile.NamedTemporaryFile("w", suffix=".Containerfile") as file:
            file.write(containerfile_text.replace("{base}", BASE_IMAGE))
            file.flush()
            mounts = [*_host_mounts(folder), *(f"--volume={volume}" for volume in volumes)]
            buildah.run(
                "bud", "--layers", "--force-rm", "--quiet", "--tag", name, "--file", file.name, *mounts, context
            )
        buildah.export(name, archive)
        _remove_older(archive)
    return archive


def _base(folder: Path, say: Callable[[str], None]) -> Buildah:
    """buildah with :data:`BASE_IMAGE` in its storage."""
    # Layers of older Dockerfiles, locks and bases would pile up, gigabytes each: one storage, of the present ones.
    storage = folder / f"storage-{_content_key(TORCH, _base_key(), *_files(SLOW_INPUTS))[:16]}"
    for other in folder.glob("storage-*"):
        if other != storage:
            say(f"removing {other.name}: a Dockerfile, its lock or the base has changed")
            _remove_storage(other)
    buildah = Buildah(folder, storage)
    if not buildah.has(BASE_IMAGE):
        rootfs = _base_rootfs(folder, say)
        context = folder / "tmp" / "base"
        context.mkdir(exist_ok=True)
        containerfile = context / "Containerfile"
        containerfile.write_text(
            f"FROM scratch\nADD {rootfs.name} /\n"
            'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD ["python3"]\n'
        )
        buildah.run("bud", "--quiet", "--tag", BASE_IMAGE, "--file", containerfile, folder)
    return buildah


def _remove_storage(storage: Path) -> None:
    """Remove a storage of buildah's; what a build that was cut off left mounted there is unmounted before."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in mounted if Path(point).is_relative_to(storage)]):
        _run(["umount", point])
    shutil.rmtree(storage)


def _base_key() -> str:
    return _content_key(_SUITE, *_BASE_PACKAGES, *_NOT_IN_BASE, str(_BASE_REVISION))[:16]


def _base_rootfs(folder: Path, say: Callable[[str], None]) -> Path:
    """A Debian with Python as a tar file, from the machine's Debian mirror."""
    target = folder / f"base-{_base_key()}.tar"
    if target.exists():
        return target
    if missing := [program for program in ("debootstrap", "buildah") if shutil.which(program) is None]:
        raise HarnessError(f"{' and '.join(missing)} not found: apt-get install buildah debootstrap")
    say("making the base image with debootstrap (a minute or two)")
    root = folder / "tmp" / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    include = f"--include={','.join(_BASE_PACKAGES)}"
    _run(["debootstrap", "--variant=minbase", include, _SUITE, root, _debian_mirror()])
    for pattern in _NOT_IN_BASE:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (root / "usr/bin/python").symlink_to("python3")
    part = target.with_suffix(".part")
    _run(["tar", "--numeric-owner", "--sort=name", "-C", root, "-cf", part, "."])
    part.rename(target)
    shutil.rmtree(root)
    for other in folder.glob("base-*.tar"):
        if other != target:
            other.unlink()
    return target


def _debian_mirror() -> str:
    """The mirror that apt uses here for this release, else debootstrap's usual one."""
    wanted = ("Created-By: Packages", "Component: main", f"Codename: {_SUITE}")
    with contextlib.suppress(HarnessError):
        for line in _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).splitlines():
            if line.startswith("http"):
                return line.rstrip("/")
    return "http://deb.debian.org/debian"


def _host_mounts(folder: Path) -> list[str]:
    """What the build borrows from its host, none of which stays in an image: CA bundle and pip's index."""
    mounts = [f"{CA_BUNDLE}:{CA_BUNDLE}:ro"] if CA_BUNDLE.exists() else []
    configuration = folder / "tmp" / "pip.conf"
    files = [Path("/etc/pip.conf"), Path.home() / ".config" / "pip" / "pip.conf"]
    configuration.write_text(pip_configuration(os.environ, files))
    mounts.append(f"{configuration}:/etc/pip.conf:ro")
    return [f"--volume={mount}" for mount in mounts]


def pip_configuration(environment: Mapping[str, str], files: Iterable[Path]) -> str:
    """A pip.conf with where and how the host's pip downloads; what names the host's own files is left out."""
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file)
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    for option in (*_PIP_OPTIONS, "default-timeout"):
        if value := environment.get("PIP_" + option.upper().replace("-", "_")):
            found[option] = value
    if "default-timeout" in found:
        found["timeout"] = found["default-timeout"]
    lines = [f"{option} = {found[option]}" for option in _PIP_OPTIONS if option in found]
    return "\n".join(["[global]", f"cert = {CA_BUNDLE}", *lines, ""])


def _archive(folder: Path, image: str, key: str) -> Path:
    return folder / "archives" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', image)}@{key[:16]}.tar"


def _remove_older(archive: Path) -> None:
    """Remove archives of the same image with another content."""
    name = archive.name.rpartition("@")[0]
    for other in archive.parent.iterdir():
        if other != archive and other.name.rpartition("@")[0] == name:
            other.unlink()


def _files(paths: Iterable[str], root: Path = CHECKOUT) -> Iterator[str]:
    """Path, mode and content of every file below, in one order on every machine; what is generated is left out."""
    for start in sorted(paths):
        top = root / start
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                executable = "x" if os.access(path, os.X_OK) else "-"
                yield f"{path.relative_to(root)} {executable} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _content_key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[Path]:
    """``CACHE/buildah`` with its folders, for this process alone."""
    folder = cache.resolve() / "buildah"
    for name in ("archives", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None, *, check: bool = True) -> str:
    """Run a command; return its standard output; HarnessError with the end of its output where it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HarnessError(f"{words[0]} not found") from None
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise HarnessError(f"{' '.join(words)}\nended with exit code {done.returncode}:\n{said}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """``build``: build both images; with --out, write archives. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.images", description=__doc__.split("\n", 1)[0])
    build = parser.add_subparsers(dest="verb", required=True).add_parser("build", help="build both images")
    build.add_argument("--cache", type=Path, required=True, metavar="DIR", help="folder that later builds use again")
    build.add_argument("--out", type=Path, metavar="DIR", help="also write docker archives into this folder")
    arguments = parser.parse_args(argv)
    try:
        build_images(arguments.cache)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for image, archive in export_images(arguments.cache, arguments.out).items():
                print(f"{image} {archive} {archive.stat().st_size / 1e6:.0f} MB")
    except HarnessError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
