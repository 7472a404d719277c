"""Build pairs of (long, short) descriptions of Debian packages from apt's lists.

The lists are fetched into folders of our own, so the system's package state is neither read nor changed. Run it with
``python -m rankwise.data.debian --output pairs.jsonl.gz``; the frozen sample beside this file was made by it.

Debian's lists are full of families of packages whose descriptions differ in a word (``-dev``, ``-doc``, language
packs, one font in ten weights). Left in, a test split would hold what a model was trained on; so of texts that are
near-identical one is kept. Pairs whose long text contains the short one word by word are dropped as well: copying is
not summarizing.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import InvalidInput, Problem, RankwiseError, SurroundingsError
from rankwise.retry import Backoff, call

_APT_HELPER = Path("/usr/lib/apt/apt-helper")

MIN_SOURCE_WORDS, MAX_SOURCE_WORDS = 15, 80
MIN_TARGET_WORDS, MAX_TARGET_WORDS = 3, 14
SHINGLE = 4
"""Words in a shingle. Two texts that share a run of so many words have something in common."""
MAX_OVERLAP = 0.3
"""Share of a text's shingles that one kept before may have: above it, the text is near-identical."""

# Packages that are parts of others or generated from a template; their texts say so, again and again.
_PART_NAME = re.compile(
    r"""
    -(?: abi\d* | all | bin | cil | common | core | data | dbg | dbgsym | dev | dkms | docs? | el | examples | extra
        | gui | headers | info | java | locale | man | modules? | perl | plugins? | prof | runtime | source | src
        | static | tests? | tools | udeb | utils | [a-z]+[-_]?l10n )(?: -.* )?$
    | -(?: i18n | l10n | lang | langpack | language-pack | locales? )-
    | ^(?: aspell | asterisk | cl | education | elpa | firmware | fonts | gap | gcc | gir1\.2 | golang | gstreamer1\.0
        | hunspell | hyphen | ispell | kernel | libghc | libreoffice | librust | linux | manpages | munin | myspell
        | mythes | node | ocaml | octave | php | php\d\.\d | qml-module | r-bioc | r-cran | r-other | ruby | task
        | tesseract-ocr | texlive | ttf | uwsgi | vim | webext | xfonts | xul )-
    """,
    re.VERBOSE,
)
_TEMPLATED = re.compile(
    r"""
    \b(?: transitional | dummy | meta-?package | virtual\ package | debug\ symbols? | language\ pack
        | translations?\ for | shared\ librar(?:y|ies) | development\ (?:files?|libraries) | header\ files?
        | introspection\ data )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What a package holds, said at the end of its short text: "(runtime)", "- Python 3.x", "(default Python3 version)".
_PACKAGING = re.compile(
    r"""
    \s+(?: -+ | \( )\s*
    (?: (?: all | binar(?:y|ies) | bindings? | cli | client | command | core | daemon | default | executables? | files?
        | for | gui | jni | lib | librar(?:y|ies) | libs | line | modules? | packages? | plugins? | programs?
        | python(?:\ ?[23](?:\.\w+)?)? | [23]\.x | run-?time | scripts? | server | shared | standalone | tools?
        | utilit(?:y|ies) | version )[\s-]* )+ \)?$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Description:
    """A package's description: its name, the short form and the paragraphs of the long form."""

    package: str
    short: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One example; ``source`` is the long text, ``target`` the short one."""

    package: str
    source: str
    target: str


def parse(text: str) -> Iterator[Description]:
    """Read the stanzas of a ``Translation-en`` list.

    A long description's lines start with a blank; `` .`` ends a paragraph; two blanks mean text that must not be
    wrapped (lists, examples), which ends the running text that we use.
    """
    for stanza in re.split(r"\n{2,}", text):
        match = re.search(r"^Package: *(\S+)$", stanza, re.MULTILINE)
        body = re.search(r"^Description-en: *(.*)((?:\n .*)*)", stanza, re.MULTILINE)
        if match and body:
            yield Description(match[1], body[1].strip(), tuple(_paragraphs(body[2].split("\n")[1:])))


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    words: list[str] = []
    for line in lines:
        if line.startswith("  ") or re.match(r" [-*+•] ", line):  # a list: the running text is over
            break
        if line.strip() == ".":
            if words:
                yield " ".join(words)
            words = []
        else:
            words += line.split()
    if words:
        yield " ".join(words)


def to_pair(description: Description) -> Pair | None:
    """A pair, or None when the description does not make a good one.

    The source is the first paragraph, with the following ones while it stays too short.
    """
    if _PART_NAME.search(description.package) or _TEMPLATED.search(description.short):
        return None
    target = _PACKAGING.sub("", " ".join(description.short.split()))
    source = ""
    for paragraph in description.paragraphs:
        source = f"{source} {paragraph}".strip()
        if len(source.split()) >= MIN_SOURCE_WORDS:
            break
    if source.endswith(":") or _TEMPLATED.search(source):  # a colon announces a list that is not part of it
        return None
    if not MIN_SOURCE_WORDS <= len(source.split()) <= MAX_SOURCE_WORDS:
        return None
    if not MIN_TARGET_WORDS <= len(target.split()) <= MAX_TARGET_WORDS:
        return None
    if not (source + target).isprintable():
        return None
    if contains_words(source, target):
        return None
    return Pair(description.package, source, target)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; numbers count as one word ``0`` (versions differ, texts do not)."""
    return ["0" if word.isdigit() else word for word in _WORD.findall(text.lower())]


def contains_words(source: str, target: str) -> bool:
    """Whether the words of ``target`` stand in ``source`` in one run."""
    return f" {' '.join(words(target))} " in f" {' '.join(words(source))} "


def _shingles(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + SHINGLE]) for i in range(max(1, len(found) - SHINGLE + 1))}


def deduplicate(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep one of each family of near-identical pairs: the one with the shortest name, then by name.

    A pair is dropped when its target was seen before, or when one pair that was kept has more than
    :data:`MAX_OVERLAP` of the shingles of its source.
    """
    kept: list[Pair] = []
    targets: set[tuple[str, ...]] = set()
    seen: dict[tuple[str, ...], list[int]] = defaultdict(list)  # shingle -> positions in kept
    for pair in sorted(pairs, key=lambda p: (len(p.package), p.package, p.source)):
        target = tuple(words(pair.target))
        if target in targets:
            continue
        shingles = _shingles(pair.source)
        shared: dict[int, int] = defaultdict(int)
        for shingle in shingles:
            for position in seen.get(shingle, ()):
                shared[position] += 1
        if max(shared.values(), default=0) > MAX_OVERLAP * len(shingles):
            continue
        for shingle in shingles:
            seen[shingle].append(len(kept))
        targets.add(target)
        kept.append(pair)
    return kept


def sample(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """Draw pairs in an order that depends on the seed and the package's name alone.

    A package that joins or leaves Debian leaves the rest of the sample as it is, unlike with a shuffle.
    """

    def rank(pair: Pair) -> tuple[str, str]:
        return hashlib.sha256(f"{seed}\0{pair.package}".encode()).hexdigest(), pair.source

    return sorted(pairs, key=rank)[:count]


def to_jsonl(pairs: Iterable[Pair]) -> bytes:
    """One JSON object a line with ``package``, ``source`` and ``target``."""
    return b"".join(
        json.dumps({"package": p.package, "source": p.source, "target": p.target}, ensure_ascii=False).encode() + b"\n"
        for p in pairs
    )


def write_gzip(content: bytes, path: Path) -> None:
    """Write a gzip file without name and time in it, so that the same content gives the same file."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as stream, gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed:
        packed.write(content)
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------------- apt's lists


def fetch_lists(folder: Path) -> None:
    """Let apt fetch the lists of the configured sources into a folder of ours.

    Raises:
        SurroundingsError: this is no Debian system, or the lists could not be fetched after bounded retries.
    """
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = ["Acquire::Languages=en", f"Dir::State::lists={lists}", f"Dir::Cache={cache}"]
    command = ["apt-get", *(part for option in options for part in ("-o", option)), "--quiet", "update"]

    def update() -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)

    def is_temporary(error: Exception) -> bool:
        return isinstance(error, subprocess.CalledProcessError)

    try:
        call(update, is_temporary=is_temporary, backoff=Backoff(attempts=3, first=2.0))
    except FileNotFoundError:
        raise SurroundingsError("there is no apt-get: build the pairs on a Debian system") from None
    except subprocess.CalledProcessError as error:
        raise SurroundingsError(f"apt-get update failed: {str(error.stderr).strip()[-300:]}") from error


def read_lists(lists: Path) -> tuple[str, list[str]]:
    """Texts of the ``Translation-en`` lists of Debian's own suites (component main), with the release they are of.

    Other sources that the system has are left out: their descriptions are under other terms.

    Raises:
        SurroundingsError: there are no such lists, or apt's helper could not unpack one.
    """
    releases, texts = [], []
    for release in sorted(lists.glob("*_InRelease")):
        header = release.read_text(encoding="utf-8", errors="replace")
        fields = dict(re.findall(r"^(Origin|Codename|Version|Date): *(.*)$", header, re.MULTILINE))
        if fields.get("Origin") != "Debian":
            continue
        base = release.name.removesuffix("InRelease")
        for file in sorted(lists.glob(f"{base}main_i18n_Translation-en*")):
            texts.append(_unpack(file))
            releases.append(f"{fields.get('Codename')} {fields.get('Version', '')} ({fields.get('Date')})")
    if not texts:
        raise SurroundingsError(f"there are no Translation-en lists of Debian in {lists}; are its sources configured?")
    return ", ".join(releases), texts


def _unpack(file: Path) -> str:
    if not file.suffix.startswith((".lz4", ".xz", ".gz", ".bz2", ".zst")):
        return file.read_text(encoding="utf-8")
    try:
        done = subprocess.run([str(_APT_HELPER), "cat-file", str(file)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise SurroundingsError(f"could not unpack {file.name} with apt-helper ({type(error).__name__})") from error
    return done.stdout.decode("utf-8")


def build(texts: Iterable[str]) -> list[Pair]:
    """All good pairs of some lists, near-identical ones removed."""
    pairs = (to_pair(description) for text in texts for description in parse(text))
    return deduplicate(pair for pair in pairs if pair is not None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see ``--help``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rankwise.data.debian",
        description="Build (long, short) descriptions of Debian packages as JSONL from apt's lists.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .jsonl.gz file to write")
    parser.add_argument("--count", type=int, metavar="N", help="draw so many pairs (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument("--lists", type=Path, metavar="FOLDER", help="use apt lists that are there already")
    arguments = parser.parse_args(argv)
    try:
        if not arguments.output.name.endswith(".jsonl.gz"):
            raise InvalidInput([Problem("--output", str(arguments.output), "a name that ends with .jsonl.gz")])
        if arguments.count is not None and arguments.count < 1:
            raise InvalidInput([Problem("--count", str(arguments.count), "a whole number from 1")])
        with contextlib.ExitStack() as stack:
            lists = arguments.lists
            if lists is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                # apt drops its rights while it fetches, and has to be able to write here all the same.
                folder.chmod(0o755)
                fetch_lists(folder)
                lists = folder / "lists"
            release, texts = read_lists(lists)
        pairs = build(texts)
        drawn = sample(pairs, arguments.count, arguments.seed)
        content = to_jsonl(drawn)
        write_gzip(content, arguments.output)
    except RankwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput) else 3
    facts = {
        "release": release,
        "pairs": len(pairs),
        "drawn": len(drawn),
        "seed": arguments.seed,
        "sha256": hashlib.sha256(arguments.output.read_bytes()).hexdigest(),
        "sha256_unpacked": hashlib.sha256(content).hexdigest(),
    }
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
