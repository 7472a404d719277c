"""Examples from a file, a folder, a hub, a store or the package itself.

Plain JSONL is read without the ``datasets`` library: a trial is a process of its own, and that import alone takes
seconds. Folders, parquet and hubs go through it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.artifacts.store import NotFound, open_store
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.retry import Backoff, call

PACKAGED = {"package:rankwise/debian-descriptions": "debian-descriptions.jsonl.gz"}

_FIELD = "data"
_SHOWN_PROBLEMS = 20
_JSONL, _PARQUET = (".jsonl", ".jsonl.gz"), (".parquet",)
_HUB_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?(:(?P<config>[\w.-]+))?(#(?P<split>[\w.-]+))?",
    re.ASCII,
)
_FORMS = (
    "a .jsonl, .jsonl.gz or .parquet file, a folder of such files, s3://bucket/key, "
    "a hub's owner/name[@revision][:config][#split], or " + ", ".join(PACKAGED)
)

Row = tuple[str, Any]
"""Where a row stands (``file:line`` or ``row N``), and what was read: a mapping if all is well."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and what should come out of it; both without blanks at their ends and not empty."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class LoadedData:
    """Examples and what identifies them.

    Attributes:
        reference: what the user wrote.
        examples: in the order of the data.
        sha256: hash of the examples (not of the file), hex: each as the JSON list ``[source, target]`` and a line
            feed, UTF-8. The same rows from a file, a folder or a store have the same hash.
    """

    reference: str
    examples: tuple[Example, ...]
    sha256: str


def load_examples(
    reference: str,
    *,
    source_field: str,
    target_field: str,
    cache: Path,
    store_environment: Mapping[str, str] | None = None,
) -> LoadedData:
    """Read all examples.

    Args:
        reference: a JSONL file (``.jsonl``, ``.jsonl.gz``) or parquet file; a folder with files of one of these kinds
            (read in the order of their names); ``s3://bucket/key`` of a file or, ending in ``/``, of a folder;
            ``owner/name[@revision][:config][#split]`` of a hub (split ``train`` when not given); or
            ``package:rankwise/debian-descriptions``.
        source_field: field of a row with the source text.
        target_field: field of a row with the target text.
        cache: folder for what can be made again.
        store_environment: variables for :func:`rankwise.artifacts.store.open_store`; ``os.environ`` when None.

    Raises:
        InvalidInput: the reference names nothing, or rows lack a field, are empty or are no text: the first 20
            problems with their lines, and how many more there are.
        SurroundingsError: the store or the hub did not answer after bounded retries.
    """
    rows: Iterable[Row]
    if reference.startswith("s3://"):
        rows = _from_store(reference, cache, store_environment)
    elif reference.startswith("package:"):
        if reference not in PACKAGED:
            raise InvalidInput([Problem(_FIELD, reference, "one of " + ", ".join(PACKAGED))])
        with importlib.resources.as_file(importlib.resources.files("rankwise.data") / PACKAGED[reference]) as path:
            rows = list(_read_jsonl(path))
    elif reference and (path := Path(reference).expanduser()).exists():
        rows = _from_path(reference, path, cache)
    elif match := _HUB_ID.fullmatch(reference):
        rows = _from_hub(reference, match, cache)
    else:
        raise InvalidInput([Problem(_FIELD, reference, _FORMS)])
    examples = _examples(reference, rows, source_field, target_field)
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.source, example.target], ensure_ascii=False).encode() + b"\n")
    return LoadedData(reference, examples, digest.hexdigest())


# ------------------------------------------------------------------------------------------------ rows to examples


def _examples(reference: str, rows: Iterable[Row], source_field: str, target_field: str) -> tuple[Example, ...]:
    examples: list[Example] = []
    problems: list[Problem] = []
    bad_rows = 0
    for where, row in rows:
        found = list(_row_problems(where, row, (source_field, target_field)))
        if found:
            bad_rows += 1
            problems += found if len(problems) < _SHOWN_PROBLEMS else ()
        else:
            examples.append(Example(row[source_field].strip(), row[target_field].strip()))
    if problems:
        shown = problems[:_SHOWN_PROBLEMS]
        total = f"{bad_rows} bad of {bad_rows + len(examples)} rows"
        raise InvalidInput([*shown, Problem(reference, total, "no bad row; the first problems are listed above")])
    if not examples:
        raise InvalidInput([Problem(_FIELD, reference, "data with at least one row")])
    return tuple(examples)


def _row_problems(where: str, row: object, fields: tuple[str, str]) -> Iterator[Problem]:
    if isinstance(row, _Unreadable):
        yield Problem(where, row.text, row.allowed)
        return
    if not isinstance(row, Mapping):
        yield Problem(where, _short(row), "a JSON object")
        return
    for field in fields:
        if field not in row:
            yield Problem(where, "fields " + ", ".join(map(str, row)), f"a row with the field {field!r}")
        elif not isinstance(row[field], str):
            yield Problem(f"{where}: {field}", _short(row[field]), "a text")
        elif not row[field].strip():
            yield Problem(f"{where}: {field}", row[field][:20], "a text that is not empty")
        elif not _is_unicode(row[field]):
            yield Problem(f"{where}: {field}", _short(row[field]), "valid Unicode (it holds half of a surrogate pair)")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    # ascii(): an error message must be printable even when the value is not.
    text = ascii(value)[1:-1] if isinstance(value, str) else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ----------------------------------------------------------------------------------------------------- JSONL


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands in a row's place when its bytes cannot be read."""

    text: str
    allowed: str


def _read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a JSONL file, gzipped or not; empty lines are skipped but counted."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{path.name}:{number}", _parse(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield f"{path.name}:{number + 1}", _Unreadable(str(error), "a whole gzip file")
    except OSError as error:
        raise SurroundingsError(f"could not read {path}: {error.strerror or error}") from error


def _parse(line: bytes) -> object:
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return _Unreadable(_short(line), "UTF-8")
    except (json.JSONDecodeError, RecursionError) as error:
        return _Unreadable(_short(line.rstrip()), f"a JSON object ({error})")


# ------------------------------------------------------------------------------------- files, folders, store, hub


def _from_path(reference: str, path: Path, cache: Path) -> Iterable[Row]:
    if path.is_dir():
        found = {
            kind: sorted(
                file
                for file in path.rglob("*")
                if file.name.endswith(kind) and file.is_file() and not file.name.startswith(".")
            )
            for kind in (_JSONL, _PARQUET)
        }
        kinds = [kind for kind, files in found.items() if files]
        if len(kinds) != 1:
            what = "a mixture" if kinds else "a folder without such files"
            raise InvalidInput([Problem(_FIELD, f"{reference} ({what})", "files of one kind: .jsonl[.gz] or .parquet")])
        return _from_files("json" if kinds[0] is _JSONL else "parquet", found[kinds[0]], reference, cache)
    if path.name.endswith(_JSONL):
        return _read_jsonl(path)
    if path.name.endswith(_PARQUET):
        return _from_files("parquet", [path], reference, cache)
    raise InvalidInput([Problem(_FIELD, reference, _FORMS)])


def _from_files(kind: str, files: list[Path], reference: str, cache: Path) -> Iterable[Row]:
    """Rows of files through the datasets library."""
    datasets = _datasets()
    try:
        table = datasets.load_dataset(
            kind, data_files=[str(file) for file in files], split="train", cache_dir=str(cache / "datasets")
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:  # pyarrow's errors are ValueErrors
        cause = error.__cause__ or error
        raise InvalidInput([Problem(_FIELD, reference, f"readable {kind} files ({cause})")]) from error
    except OSError as error:
        raise SurroundingsError(f"could not read {reference}: {error.strerror or error}") from error
    return ((f"{reference} row {i}", row) for i, row in enumerate(table, start=1))


def _from_store(reference: str, cache: Path, environment: Mapping[str, str] | None) -> list[Row]:
    bucket, _, key = reference.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise InvalidInput([Problem(_FIELD, reference, "s3://bucket/key")])
    store = open_store(f"s3://{bucket}", environment)
    downloads = cache / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    # Not kept: the object may be another one tomorrow, and a trial on a cluster starts with an empty disk anyway.
    folder = Path(tempfile.mkdtemp(dir=downloads))
    try:
        target = folder / Path(key).name
        if key.endswith("/"):
            store.get_folder(key.rstrip("/"), target)
        else:
            store.get_file(key, target)
        return list(_from_path(reference, target, cache))
    except NotFound as error:
        raise InvalidInput([Problem(_FIELD, reference, "an object of the store")]) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _from_hub(reference: str, match: re.Match[str], cache: Path) -> Iterable[Row]:
    """Rows of one split of a data set on a hub."""
    datasets = _datasets()

    def load() -> Any:
        return datasets.load_dataset(
            match["name"],
            match["config"],
            split=match["split"] or "train",
            revision=match["revision"],
            cache_dir=str(cache / "datasets"),
        )

    try:
        table = call(load, is_temporary=lambda error: isinstance(error, ConnectionError), backoff=Backoff())
    except (datasets.exceptions.DatasetNotFoundError, ValueError) as error:
        raise InvalidInput(
            [Problem(_FIELD, reference, f"an existing path or a data set of the hub ({error})")]
        ) from error
    except OSError as error:
        raise SurroundingsError(
            f"could not get the data set {match['name']} from the hub ({type(error).__name__}); check the network, or "
            f"pass a file or folder; {', '.join(PACKAGED)} needs no hub"
        ) from error
    return ((f"{reference} row {i}", row) for i, row in enumerate(table, start=1))


def _datasets() -> Any:
    """The datasets library without its progress bars (ours tell what happens); imported only when needed."""
    import datasets

    datasets.disable_progress_bars()
    return datasets
