"""Programs and images of Kubeflow Pipelines' backend: its Go modules, Argo Workflows', and ML Metadata from PyPI."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from google.protobuf import descriptor
from google.protobuf.compiler import plugin_pb2
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from harness.archives import program_image
from harness.build import Module, build_module, environment, go, writable_copy
from harness.images import BASE_IMAGE, build_simple
from harness.places import MODULES, HarnessError, Places
from harness.small_images import debian_sources

PIPELINES = "2.14.3"
"""Of the module's commit. Later ones are not to be had from the Go module proxies that we could ask."""
ARGO = "3.6.7"
_KFP = "github.com/kubeflow/pipelines"
_BACKEND = f"{_KFP}/backend/src"
_ARGO = "github.com/argoproj/argo-workflows/v3/cmd"
_PROGRAMS = {
    "driver": f"{_BACKEND}/v2/cmd/driver",
    "launcher-v2": f"{_BACKEND}/v2/cmd/launcher-v2",
    "persistence": f"{_BACKEND}/agent/persistence",
    "scheduledworkflow": f"{_BACKEND}/crd/controller/scheduledworkflow",
    "workflow-controller": f"{_ARGO}/workflow-controller",
    "argoexec": f"{_ARGO}/argoexec",
}
IMAGES = {
    "api-server": f"localhost/kfp-api-server:{PIPELINES}",
    "driver": f"localhost/kfp-driver:{PIPELINES}",
    "launcher": f"localhost/kfp-launcher:{PIPELINES}",
    "persistence-agent": f"localhost/kfp-persistence-agent:{PIPELINES}",
    "scheduled-workflow": f"localhost/kfp-scheduled-workflow-controller:{PIPELINES}",
    "workflow-controller": f"localhost/workflow-controller:v{ARGO}",
    "argoexec": f"localhost/argoexec:v{ARGO}",
    "metadata": "localhost/ml-metadata:1.17.0",
    "mariadb": "localhost/mariadb:10.11",
}
_PARTS = {
    "driver": "driver",
    "launcher": "launcher-v2",
    "persistence-agent": "persistence",
    "scheduled-workflow": "scheduledworkflow",
    "workflow-controller": "workflow-controller",
    "argoexec": "argoexec",
}
_GENERATED = {
    "api": ("v2alpha1/go/pipelinespec", pipeline_spec_pb2.DESCRIPTOR),
    "kubernetes_platform": ("go/kubernetesplatform", kubernetes_executor_config_pb2.DESCRIPTOR),
}
"""KFP's two modules of generated code: their folder for it, and the protocol file that it is made from."""
_GENERATED_MODULE = """module github.com/kubeflow/pipelines/{name}

go 1.24

require google.golang.org/protobuf v1.36.6
"""
_CACHE_KEY = "v2alpha1/go/cachekey"
"""Another protocol file of the module `api`, of which there is no Python package; it has not changed since."""
_ARGO_FOLDERS = ("cmd", "config", "errors", "manifests", "persist", "pkg", "server", "util", "workflow")
_SIGNALS = "workflow/executor/os-specific/signal_{system}.go"
_METADATA = f"""
FROM {BASE_IMAGE}
COPY requirements.txt server.py /opt/mlmd/
RUN pip install --no-cache-dir --no-compile -r /opt/mlmd/requirements.txt
USER 65532:65532
ENTRYPOINT ["python", "/opt/mlmd/server.py"]
"""
_MARIADB = f"""
FROM {BASE_IMAGE}
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -q && apt-get install -y -q --no-install-recommends mariadb-server && rm -rf /var/lib/apt/lists/*
COPY entrypoint.sh /entrypoint.sh
USER 65532:65532
ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]
"""
_MARIADB_ENTRYPOINT = """set -eu
[ -d /data/mysql ] \\
  || mariadb-install-db --datadir=/data --auth-root-authentication-method=normal --skip-test-db >/dev/null
umask 077
cat >/tmp/start.sql <<SQL
CREATE USER IF NOT EXISTS '$MARIADB_USER'@'%' IDENTIFIED BY '$MARIADB_PASSWORD';
GRANT ALL ON *.* TO '$MARIADB_USER'@'%';
SQL
exec mariadbd --no-defaults --datadir=/data --socket=/tmp/mysqld.sock --bind-address=0.0.0.0 \\
  --init-file=/tmp/start.sql --character-set-server=utf8mb4
"""


def source(places: Places) -> Path:
    """The Go module with all its files.

    KFP's repository replaces two modules of generated code by folders, and what proxies have of these modules is older
    than the rest. They are made anew from the descriptors in the packages kfp-pipeline-spec and kfp-kubernetes.
    """
    folder = places.cache / "sources" / "pipelines"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MODULES / "pipelines", folder)
    for name in _GENERATED:
        (folder / name).mkdir()
        (folder / name / "go.mod").write_text(_GENERATED_MODULE.format(name=name))
    with tempfile.TemporaryDirectory() as scratch:
        plugin = Path(scratch, "protoc-gen-go")
        command = [go(), "build", "-o", str(plugin), "google.golang.org/protobuf/cmd/protoc-gen-go"]
        _checked(subprocess.run(command, cwd=folder, env=environment(), capture_output=True), "protoc-gen-go")
        for name, (inner, file) in _GENERATED.items():
            _generate(plugin, file, folder / name / inner)
    shutil.copytree(_download(f"{_KFP}/api") / _CACHE_KEY, folder / "api" / _CACHE_KEY)
    _copy_argo(folder / "argo-workflows")
    return folder


def _generate(plugin: Path, file: descriptor.FileDescriptor, folder: Path) -> None:
    """Go code of a protocol file, by the plugin alone: the descriptor is what protoc would have handed to it."""
    request = plugin_pb2.CodeGeneratorRequest(file_to_generate=[file.name], parameter="paths=source_relative")
    for each in _with_imports(file, {}).values():
        each.CopyToProto(request.proto_file.add())
    done = subprocess.run([plugin], input=request.SerializeToString(), capture_output=True)
    response = plugin_pb2.CodeGeneratorResponse.FromString(_checked(done, str(plugin)))
    folder.mkdir(parents=True)
    for generated in response.file:
        (folder / generated.name).write_text(generated.content)


def _with_imports(
    file: descriptor.FileDescriptor, found: dict[str, descriptor.FileDescriptor]
) -> dict[str, descriptor.FileDescriptor]:
    """A file after those that it imports."""
    for imported in file.dependencies:
        if imported.name not in found:
            _with_imports(imported, found)
    found[file.name] = file
    return found


def _checked(done: subprocess.CompletedProcess[bytes], what: str) -> bytes:
    if done.returncode:
        raise HarnessError(f"{what} failed: {done.stderr.decode()[-2000:]}")
    return bytes(done.stdout)


def _copy_argo(folder: Path) -> None:
    """Argo's module with a file of it that is a symbolic link, which the archives of Go modules leave out."""
    argo = argo_folder()
    folder.mkdir()
    for path in argo.iterdir():
        if path.name in _ARGO_FOLDERS:
            writable_copy(path, folder / path.name)
        elif path.is_file():
            shutil.copyfile(path, folder / path.name)
    shutil.copyfile(folder / _SIGNALS.format(system="darwin"), folder / _SIGNALS.format(system="linux"))


def _download(module: str) -> Path:
    """Where the files of a module lie that ``modules/pipelines-sources`` requires."""
    folder = MODULES / "pipelines-sources"
    done = subprocess.run(
        [go(), "mod", "download", "-json", module], cwd=folder, env=environment(), capture_output=True
    )
    answer = json.loads(done.stdout)
    if "Dir" not in answer:
        raise HarnessError(f"go mod download {module}: {answer.get('Error', done.stderr.decode())}")
    return Path(answer["Dir"])


def pipelines_folder() -> Path:
    """KFP's own files (manifests, configuration, web interface)."""
    return _download(_KFP)


def argo_folder() -> Path:
    """Argo Workflows' own files."""
    return _download("github.com/argoproj/argo-workflows/v3")


def pipelines_images(places: Places, folder: Path) -> dict[str, Path]:
    """Build the images; image name -> archive. What the cache has is not built again.

    Args:
        places: folders.
        folder: from :func:`source`.

    Raises:
        HarnessError: a build failed.
    """
    log = places.logs / "build.log"
    programs = build_module("pipelines", Module(folder, _PROGRAMS), places.cache, log)
    # It names SQLite's errors, and these are C: linked as one file, since its image holds no C library.
    tags = "netgo,osusergo,sqlite_omit_load_extension"
    server = Module(folder, {"apiserver": f"{_BACKEND}/apiserver"}, "-s -w -extldflags=-static", tags, cgo=True)
    api_server = build_module("kfp-api-server", server, places.cache, log)
    config = pipelines_folder() / "backend" / "src" / "apiserver" / "config"
    parts = {
        "api-server": {"/usr/bin/apiserver": api_server / "apiserver", "/config/config.json": config / "config.json"},
        **{part: {f"/usr/bin/{name}": programs / name} for part, name in _PARTS.items()},
    }
    images = {}
    for part, files in parts.items():
        entrypoint = [next(iter(files))]
        images[IMAGES[part]] = program_image(
            places.cache / "programs", IMAGES[part], files, entrypoint=entrypoint, writable=["/tmp"]
        )
    images[IMAGES["metadata"]] = build_simple(
        places.cache, IMAGES["metadata"], _METADATA, Path(__file__).parent / "mlmd"
    )
    with tempfile.TemporaryDirectory() as context:
        Path(context, "entrypoint.sh").write_text(_MARIADB_ENTRYPOINT)
        images[IMAGES["mariadb"]] = build_simple(
            places.cache, IMAGES["mariadb"], _MARIADB, Path(context), volumes=debian_sources()
        )
    return images
