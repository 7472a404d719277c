"""The raw texts: fetched once into a folder, without installing anything and without touching the system's state.

    python -m benchmarks.lora_runs.sources        (from tests/; a Debian system; 30 MB)

- ``lists/``: apt's lists of Debian's main component (package descriptions and sections);
- ``wordnet/``: the data files of WordNet 3.0 from the Debian package ``wordnet-base``, unpacked and not installed;
- ``chatterbot/``: the English files of ``chatterbot-corpus`` 1.3.3, a wheel that is unpacked and not installed;
- the 3,600 pairs of Debian descriptions come with the package :mod:`rankwise.data`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from rankwise.data import debian
from rankwise.settings import Settings

_APT_HELPER = "/usr/lib/apt/apt-helper"
_CHATTERBOT = "chatterbot-corpus==1.3.3"
_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")


def default_folder() -> Path:
    """Where the sources lie unless another folder is given."""
    return Settings.from_environment().cache / "lora-runs"


def fetch(folder: Path) -> None:
    """Fetch what is not there yet.

    Raises:
        SurroundingsError: apt's lists could not be fetched.
        subprocess.CalledProcessError: a package could not be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        temporary = Path(name)
        temporary.chmod(0o755)  # apt drops its rights while it fetches
        if not (folder / "lists").exists():
            debian.fetch_lists(temporary)
            (temporary / "lists").rename(folder / "lists")
        if not (folder / "wordnet").exists():
            subprocess.run(["apt-get", "download", "wordnet-base"], cwd=temporary, check=True)
            (package,) = temporary.glob("wordnet-base_*.deb")
            subprocess.run(["dpkg-deb", "-x", package, temporary / "deb"], check=True)
            (temporary / "deb/usr/share/wordnet").rename(folder / "wordnet")
        if not (folder / "chatterbot").exists():
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(temporary), _CHATTERBOT]
            subprocess.run(command, check=True)
            (wheel,) = temporary.glob("chatterbot_corpus-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(temporary / "wheel")
            shutil.move(temporary / "wheel/chatterbot_corpus/data/english", folder / "chatterbot")


def _packages(folder: Path) -> Iterator[str]:
    """Stanzas of Debian's main component (amd64), list by list."""
    for file in sorted((folder / "lists").glob("*_main_binary-amd64_Packages*")):
        text = subprocess.run([_APT_HELPER, "cat-file", str(file)], check=True, capture_output=True).stdout.decode()
        yield from text.split("\n\n")


def sections(folder: Path) -> dict[str, str]:
    """Section of each package of Debian's main component (amd64); the lists' release is the one of the folder."""
    found: dict[str, str] = {}
    for stanza in _packages(folder):
        package = re.search(r"^Package: (\S+)$", stanza, re.MULTILINE)
        section = re.search(r"^Section: (\S+)$", stanza, re.MULTILINE)
        if package and section:
            found.setdefault(package[1], section[1])
    return found


def role(stanza: str) -> str | None:
    """The role (debtags' facet ``role::``) of a package that has exactly one; its tags may fold over several lines."""
    tags = re.search(r"^Tag:(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
    found = {tag for tag in re.split(r"[\s,]+", tags[1]) if tag.startswith("role::")} if tags else set()
    return found.pop().removeprefix("role::") if len(found) == 1 else None


def roles(folder: Path) -> list[tuple[str, str]]:
    """Short description and role of packages with exactly one role: of each source package the first of each role.

    A source package's binary packages of one role say the same in other words: both would be train and test at once.
    """
    found: dict[tuple[str, str], str] = {}
    for stanza in _packages(folder):
        package = re.search(r"^Package: (\S+)$", stanza, re.MULTILINE)
        text = re.search(r"^Description: (.+)$", stanza, re.MULTILINE)
        its_role = role(stanza)
        if package and text and its_role:
            source = re.search(r"^Source: (\S+)", stanza, re.MULTILINE)
            found.setdefault(((source or package)[1], its_role), text[1])
    return [(text, its_role) for (_, its_role), text in found.items()]


def descriptions(folder: Path) -> tuple[str, list[debian.Pair]]:
    """The release of apt's lists, and the pairs of descriptions that :mod:`rankwise.data.debian` makes of them."""
    release, texts = debian.read_lists(folder / "lists")
    return release, debian.build(texts)


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning in WordNet.

    Attributes:
        offset: part of speech and place in its file; unique.
        category: the lexicographer file it stems from, e.g. ``noun.animal``.
        words: its words, with blanks.
        gloss: its definition, without the examples of use.
        examples: sentences of use.
    """

    offset: str
    category: str
    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]


# lexnames(5WN): numbers 00 to 44.
CATEGORIES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute"),
    *("noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)


def synsets(folder: Path) -> Iterator[Synset]:
    """All meanings, in the order of WordNet's files (wndb(5WN))."""
    for part in _PARTS_OF_SPEECH:
        with (folder / "wordnet" / f"data.{part}").open(encoding="latin-1") as stream:
            for line in stream:
                if line.startswith("  "):  # the licence
                    continue
                data, _, text = line.partition(" | ")
                fields = data.split()
                count = int(fields[3], 16)
                words = tuple(re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * count : 2])
                gloss = re.split(r'[;:,]?\s*"', text, maxsplit=1)[0].strip(" ;\n")
                examples = tuple(found.strip() for found in re.findall(r'"([^"]+)"', text))
                yield Synset(f"{part}{fields[0]}", CATEGORIES[int(fields[1])], words, gloss, examples)


def conversations(folder: Path) -> Iterator[tuple[str, str]]:
    """First question and first answer of each conversation, in the order of files and lines; blanks made single."""
    for file in sorted((folder / "chatterbot").glob("*.yml")):
        for lines in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            question, answer = (" ".join(str(line).split()) for line in lines[:2])
            yield question, answer


def main() -> None:
    """Fetch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, default=default_folder(), help="folder (default: %(default)s)")
    folder = parser.parse_args().sources
    fetch(folder)
    print(f"sources in {folder}")


if __name__ == "__main__":
    main()
