"""Data of a trial: load it, split it, take a random subset (the proxy), turn it into batches of tokens."""

from rankwise.data.collate import CausalCollator, Collator, Encoded, Seq2SeqCollator, batches
from rankwise.data.load import Example, LoadedData, load_examples
from rankwise.data.split import Size, Split, parse_size, split, subset

__all__ = [
    "CausalCollator",
    "Collator",
    "Encoded",
    "Example",
    "LoadedData",
    "Seq2SeqCollator",
    "Size",
    "Split",
    "batches",
    "load_examples",
    "parse_size",
    "split",
    "subset",
]
