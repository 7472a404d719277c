"""The one table of the trial's command line: it parses, validates, documents and names every option.

Every value arrives as text (a trial's command is pasted together from Katib's parameters), is read by its flag's kind
and checked against its bounds; all mistakes are reported at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.data import parse_size
from rankwise.errors import InvalidInput, Problem
from rankwise.logs import FORMATS

GENERATED_METRICS = ("rouge1", "rouge2", "rougeL", "bleu", "exact_match")
"""Metrics on greedily generated text."""
OBJECTIVES = ("loss", *GENERATED_METRICS)
COST_METRICS = ("seconds", "peak_memory_bytes", "energy_joules", "seconds_per_epoch")
"""Fields of :class:`rankwise.artifacts.Cost`."""
METRICS = (*OBJECTIVES, *COST_METRICS)

KATIB_TRIAL = "KATIB_TRIAL_NAME"
"""Variable that Katib sets in every trial's pod."""

Reader = Callable[[str], Any]
"""Text to value; raises ValueError whose message says what is allowed."""


def _integer(low: int) -> Reader:
    def read(text: str) -> int:
        # int() also takes "1_0", " 8 " and "+8"; "8.0" would hide that a double parameter feeds a whole number.
        if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII) or int(text) < low:
            raise ValueError(f"a whole number from {low}, without a point")
        return int(text)

    return read


def _number(low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> Reader:
    above = f"a number above {low:g}" if open_low else f"a number from {low:g}"
    below = "" if high == math.inf else (f" and below {high:g}" if open_high else f" up to {high:g}")

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        in_range = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
        if not (in_range and math.isfinite(value)):
            raise ValueError(above + below)
        return value

    return read


def _choice(*choices: str) -> Reader:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text

    return read


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that is not empty")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", text, re.ASCII):
        raise ValueError("a name of letters, digits, '.', '_' and '-'")
    return text


def _parent(text: str) -> str | None:
    # A label that is not there reaches a pod as an empty variable, and a command line as "--parent=".
    return _name(text) if text else None


def _template(text: str) -> str:
    # A newline cannot be typed in most Experiment files' lists; "\n" written out stands for one.
    text = text.replace("\\n", "\n")
    if text.count("{source}") != 1:
        raise ValueError("a text that holds {source} exactly once")
    return text


def _size(text: str) -> int | float:
    try:
        return parse_size(text)
    except InvalidInput as error:
        raise ValueError(error.problems[0].allowed) from None


def _some(text: str) -> int | float:
    size = _size(text)
    if size == 0:
        raise ValueError("a whole number of examples from 1, or a fraction above 0.0 up to 1.0")
    return size


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(re.fullmatch(r"[\w.-]+", name, re.ASCII) for name in names):
        raise ValueError("auto, all-linear, or names of linear layers separated by commas")
    return tuple(dict.fromkeys(names))


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"some of {', '.join(METRICS)}, separated by commas (not {', '.join(unknown)})")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Flag:
    """One option.

    Attributes:
        name: without the dashes; the field of TrainConfig has underscores in place of dashes.
        read: text to value.
        default: value when it is not given; None: no value.
        group: heading in ``--help``.
        metavar: what the value is.
        help: what it means, with its unit.
        variables: environment variables that give the default, the first one that is set.
        decides: whether it can change the result; others only say where and how it runs.
    """

    name: str
    read: Reader
    default: Any
    group: str
    metavar: str
    help: str
    variables: tuple[str, ...] = ()
    decides: bool = True

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")


_LORA, _TRAINING, _DATA, _MODEL = "adapter", "training", "data", "model"
_EVALUATION, _RUN = "evaluation", "where and how it runs"

REQUIRED = ("model", "data")

FLAGS: tuple[Flag, ...] = (
    Flag("model", _text, None, _MODEL, "REF", "folder, hub id, or package:NAME (required)"),
    Flag(
        "num-layers", _integer(1), None, _MODEL, "N", "keep the first N layers only (a smaller stand-in); default: all"
    ),
    Flag("task", _choice("causal", "seq2seq"), "causal", _MODEL, "TASK", "causal or seq2seq"),
    Flag("data", _text, None, _DATA, "REF", "JSONL file, folder, hub id, s3://… or package:NAME (required)"),
    Flag("source-field", _text, "source", _DATA, "NAME", "field of the input text"),
    Flag("target-field", _text, "target", _DATA, "NAME", "field of the wanted text"),
    Flag(
        "template",
        _template,
        None,
        _DATA,
        "TEXT",
        "prompt around {source}; default depends on the task",
        # Katib hands a trial's command to a shell without quotes, which would take a prompt apart.
        ("RANKWISE_TEMPLATE",),
    ),
    Flag("validation", _some, 0.1, _DATA, "SIZE", "validation split: a number of examples or a fraction"),
    Flag("test", _size, 0.1, _DATA, "SIZE", "test split: a number of examples or a fraction"),
    Flag("split-seed", _integer(0), 0, _DATA, "N", "seed of the split"),
    Flag("subset", _some, 1.0, _DATA, "SIZE", "train on a random part of the training split (the proxy)"),
    Flag("subset-seed", _integer(0), 0, _DATA, "N", "seed of that part; parts of one seed are nested"),
    Flag("max-source-tokens", _integer(1), 256, _DATA, "N", "the source is cut to N tokens"),
    Flag("max-target-tokens", _integer(1), 64, _DATA, "N", "the target is cut to N tokens; also generated at most"),
    Flag("rank", _integer(1), 8, _LORA, "N", "rank of the adapter"),
    Flag("alpha", _number(0, open_low=True), None, _LORA, "X", "scale: the update is multiplied by alpha / rank"),
    Flag("alpha-ratio", _number(0, open_low=True), None, _LORA, "X", "alpha as a multiple of the rank; default: 2"),
    Flag("dropout", _number(0, 1, open_high=True), 0.0, _LORA, "P", "dropout before the adapter"),
    Flag(
        "target-modules",
        _names,
        ("auto",),
        _LORA,
        "NAMES",
        "layers with an adapter: names separated by commas, all-linear, or auto (all-linear; q,v for T5)",
    ),
    Flag("variant", _choice("lora", "rslora", "dora", "pissa"), "lora", _LORA, "NAME", "lora, rslora, dora or pissa"),
    Flag("learning-rate", _number(0, open_low=True), 2e-4, _TRAINING, "X", "peak learning rate of AdamW"),
    Flag(
        "schedule", _choice("linear", "cosine", "constant"), "linear", _TRAINING, "NAME", "linear, cosine or constant"
    ),
    Flag("warmup-ratio", _number(0, 1, open_high=True), 0.0, _TRAINING, "R", "part of the steps with a rising rate"),
    Flag(
        "parent",
        _parent,
        None,
        _TRAINING,
        "NAME",
        "trial of the same experiment whose adapter and moments this one begins with; it was run with --keep-state; "
        "--steps, --epochs and --schedule are this trial's own; default or empty: none",
        ("RANKWISE_PARENT",),
    ),
    Flag("batch-size", _integer(1), 8, _TRAINING, "N", "examples in one optimizer step"),
    Flag("micro-batch-size", _integer(1), None, _TRAINING, "N", "examples at once, accumulated; default: batch-size"),
    Flag("epochs", _integer(1), None, _TRAINING, "N", "passes over the training data; default: 1"),
    Flag("steps", _integer(1), None, _TRAINING, "N", "optimizer steps, in place of --epochs"),
    Flag("seed", _integer(0), 0, _TRAINING, "N", "seed of the adapter's start, the order of the data and dropout"),
    Flag("weight-decay", _number(0), 0.0, _TRAINING, "X", "decoupled weight decay of AdamW"),
    Flag("max-grad-norm", _number(0, open_low=True), 1.0, _TRAINING, "X", "longer gradients are scaled to this norm"),
    Flag(
        "precision",
        _choice("auto", "fp32", "bf16"),
        "auto",
        _TRAINING,
        "NAME",
        "fp32, bf16, or auto: bf16 where the device has matrix units for it (CUDA, AMX), else fp32",
    ),
    Flag(
        "objective",
        _choice(*OBJECTIVES),
        "loss",
        _EVALUATION,
        "NAME",
        "what the search optimizes: " + ", ".join(OBJECTIVES),
    ),
    Flag("metrics", _metrics, (), _EVALUATION, "NAMES", f"metrics to report as well, of {', '.join(METRICS)}"),
    Flag(
        "evaluate-every", _integer(1), None, _EVALUATION, "STEPS", "evaluate during training; default: at the end only"
    ),
    Flag("generate-samples", _integer(1), 64, _EVALUATION, "N", "examples that texts are generated for, at most"),
    Flag(
        "early-stop-delta",
        _number(0),
        None,
        _EVALUATION,
        "X",
        "stop when the loss no longer improves by X; default: never",
    ),
    Flag(
        "early-stop-patience", _integer(1), 5, _EVALUATION, "N", "evaluations without that improvement before the stop"
    ),
    Flag(
        "evaluate", _choice("none", "test"), "none", _EVALUATION, "NAME", "test: measure on the test split at the end"
    ),
    Flag(
        "store",
        _text,
        None,
        _RUN,
        "URI",
        "folder or s3://bucket/prefix for results",
        ("RANKWISE_STORE",),
        decides=False,
    ),
    Flag(
        "namespace",
        _name,
        None,
        _RUN,
        "NAME",
        "namespace of the experiment in its cluster; default: none, for one machine",
        ("RANKWISE_NAMESPACE",),
        decides=False,
    ),
    Flag("experiment", _name, "manual", _RUN, "NAME", "name in the store", ("RANKWISE_EXPERIMENT",), decides=False),
    Flag(
        "trial",
        _name,
        None,
        _RUN,
        "NAME",
        "name in the store; default: from the options",
        ("RANKWISE_TRIAL", KATIB_TRIAL),
        decides=False,
    ),
    Flag(
        "output", _text, None, _RUN, "DIR", "folder for manifest and adapter, without or beside a store", decides=False
    ),
    Flag(
        "metrics-format",
        _choice("text", "json"),
        "text",
        _RUN,
        "FORM",
        "text (name=value lines) or json",
        decides=False,
    ),
    Flag("metrics-file", _text, None, _RUN, "PATH", "append the metric lines to a file, not to stdout", decides=False),
    Flag(
        "checkpoint-every", _integer(1), None, _RUN, "STEPS", "save the state; default: on SIGTERM only", decides=False
    ),
    Flag(
        "keep-state",
        _choice("none", "final"),
        "none",
        _RUN,
        "NAME",
        "final: keep adapter and moments of the end for trials that name this one as --parent",
        decides=False,
    ),
    Flag(
        "threads",
        _integer(1),
        None,
        _RUN,
        "N",
        "threads of the CPU; default: torch's choice",
        ("RANKWISE_THREADS",),
        decides=False,
    ),
    Flag(
        "log-format",
        _choice(*FORMATS),
        None,
        _RUN,
        "FORM",
        "text or json (one object a line); default: json in a Katib trial's pod, else text",
        ("RANKWISE_LOG_FORMAT",),
        decides=False,
    ),
    Flag("device", _choice("auto", "cpu", "cuda"), "auto", _RUN, "NAME", "auto, cpu or cuda", decides=False),
)

_EPILOG = """\
The last metric lines are those of the trained adapter on the validation split (and, as test_NAME, on the test split).
exit codes: 0 done; 1 a mistake of ours, with its trace; 2 wrong input, one line for each mistake; 3 store, network or
disk failed; 4 the loss diverged; 5 out of memory; 143 stopped by SIGTERM after a checkpoint (the same command goes on
from it). When Katib stops a trial early, its adapter and manifest are kept and the code is 0.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every flag; values stay text until :func:`read_flags` reads them all."""
    groups: dict[str, Any] = {}
    for flag in FLAGS:
        group = groups.setdefault(flag.group, None) or parser.add_argument_group(flag.group)
        groups[flag.group] = group
        text = flag.help
        if flag.default not in (None, ()):
            text += f" ({_show(flag.default)})"
        if flag.variables:
            text += f" [{', '.join(flag.variables)}]"
        group.add_argument(f"--{flag.name}", metavar=flag.metavar, help=text.replace("%", "%%"))


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``rankwise train``."""
    parser = argparse.ArgumentParser(
        prog="rankwise train",
        description="Train a LoRA adapter with one configuration and report how good it is and what it cost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    return parser


def read_flags(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """Read a command line.

    Args:
        argv: arguments after ``train``.
        environment: variables; an empty one counts as unset.

    Returns:
        field -> value for every flag (its default where the value is wrong), and every mistake that a flag by itself
        can show.
    """
    given, unknown = make_parser().parse_known_args(_joined(argv))
    problems = [Problem(text, text, "an option that --help names") for text in unknown]
    values: dict[str, Any] = {}
    for flag in FLAGS:
        text, path = getattr(given, flag.field), f"--{flag.name}"
        if text is None and (found := next((name for name in flag.variables if environment.get(name)), None)):
            text, path = environment[found], found
        values[flag.field] = flag.default
        if text is None:
            if flag.name in REQUIRED:
                problems.append(Problem(path, "nothing", "this option must be given"))
            continue
        try:
            values[flag.field] = flag.read(text)
        except ValueError as error:
            problems.append(Problem(path, text, str(error)))
    return values, problems


def _joined(argv: Sequence[str]) -> list[str]:
    """``--flag value`` as ``--flag=value``: argparse takes a value such as ``-1e-4`` for another option."""
    names = {f"--{flag.name}" for flag in FLAGS}
    joined: list[str] = []
    rest = list(argv)
    while rest:
        text = rest.pop(0)
        if text in names and rest and rest[0] not in names and rest[0] not in ("-h", "--help"):
            text = f"{text}={rest.pop(0)}"
        joined.append(text)
    return joined


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
