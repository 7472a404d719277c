"""The images of everything that is not ours: pause, Katib's programs, Katib's early stopping service, Postgres, S3."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from harness import katib
from harness.archives import program_image
from harness.build import build, module_folder
from harness.images import BASE_IMAGE, build_simple
from harness.node import PAUSE_IMAGE
from harness.places import POSTGRES, SEAWEEDFS, HarnessError, Places

S3_IMAGE = f"localhost/seaweedfs:{SEAWEEDFS}"

# What the official image does, as far as Katib's manifest needs it: a database at first start, then the server.
_POSTGRES = f"""
FROM {BASE_IMAGE}
ENV DEBIAN_FRONTEND=noninteractive
RUN mkdir -p /usr/share/man/man1 /usr/share/man/man7 && apt-get update -q \\
    && apt-get install -y -q --no-install-recommends postgresql-{POSTGRES} \\
    && rm -rf /var/lib/apt/lists/* && install -d -m 1777 /run/postgresql
COPY entrypoint.sh /entrypoint.sh
USER postgres
ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]
"""
_POSTGRES_ENTRYPOINT = f"""set -eu
PATH=/usr/lib/postgresql/{POSTGRES}/bin:$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  umask 077
  echo "$POSTGRES_PASSWORD" > /tmp/password
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 >/dev/null
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  [ "$POSTGRES_DB" = postgres ] \\
    || echo "create database \\"$POSTGRES_DB\\"" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec postgres -D "$PGDATA" -c listen_addresses='*'
"""
_MEDIANSTOP = f"""
FROM {BASE_IMAGE}
COPY katib /opt/katib
ENV PYTHONPATH=/opt/katib:/opt/katib/pkg/apis/manager/v1beta1/python
WORKDIR /opt/katib/cmd/earlystopping/medianstop/v1beta1
RUN pip install --no-cache-dir --no-compile -r requirements.txt && python -m compileall -q /opt/katib
USER 65532:65532
ENTRYPOINT ["python", "main.py"]
"""


def small_images(places: Places) -> dict[str, Path]:
    """Build the images; image name -> archive. What the cache has is not built again.

    Raises:
        HarnessError: a build failed.
    """
    cache = places.cache
    log = places.logs / "build.log"
    folder = cache / "programs"
    programs = build("katib", cache, log)
    images = {
        PAUSE_IMAGE: program_image(
            folder, PAUSE_IMAGE, {"/pause": build("pause", cache, log) / "pause"}, entrypoint=["/pause"]
        ),
        S3_IMAGE: program_image(folder, S3_IMAGE, {"/usr/bin/weed": weed()}, entrypoint=["weed"], writable=["/tmp"]),
    }
    for part, program in (
        ("controller", "katib-controller"),
        ("db-manager", "katib-db-manager"),
        ("collector", "file-metricscollector"),
    ):
        name = katib.IMAGES[part]
        files = {f"/app/{program}": programs / program}
        if part == "collector":
            files["/usr/bin/pgrep"] = build("pgrep", cache, log) / "pgrep"
        images[name] = program_image(
            folder, name, files, working_dir="/app", entrypoint=[f"./{program}"], writable=["/tmp"]
        )
    with tempfile.TemporaryDirectory() as context:
        Path(context, "entrypoint.sh").write_text(_POSTGRES_ENTRYPOINT)
        images[katib.IMAGES["postgres"]] = build_simple(
            cache,
            katib.IMAGES["postgres"],
            _POSTGRES,
            Path(context),
            volumes=debian_sources(),
        )
    with tempfile.TemporaryDirectory() as context:
        source = module_folder("katib", "github.com/kubeflow/katib")
        for part in ("pkg/apis/manager", "pkg/earlystopping", "cmd/earlystopping"):
            shutil.copytree(source / part, Path(context, "katib", part), copy_function=shutil.copyfile)
        images[katib.IMAGES["medianstop"]] = build_simple(cache, katib.IMAGES["medianstop"], _MEDIANSTOP, Path(context))
    return images


def debian_sources() -> list[str]:
    """The host's mirrors as volumes of a build: the base image knows none."""
    sources = [path for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d") if Path(path).exists()]
    return [f"{path}:{path}:ro" for path in sources]


def weed() -> Path:
    """SeaweedFS's program, from the package that the tests use.

    Raises:
        HarnessError: it is not installed.
    """
    found = Path(sys.executable).parent / "weed"
    if not found.exists():
        raise HarnessError(f"{found} is missing: make install")
    return found
