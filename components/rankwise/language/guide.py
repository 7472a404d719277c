"""What is known about LoRA's hyperparameters, in words: the prose of a prompt and the vocabulary of a configuration.

Sources of the statements: Hu et al. 2021 (LoRA, arXiv 2106.09685), Kalajdzievski 2023 (rank-stabilized LoRA, arXiv
2312.03732), Liu et al. 2024 (DoRA, arXiv 2402.09353), Meng et al. 2024 (PiSSA, arXiv 2404.02948), learning rates of
LoRA variants (arXiv 2602.04998), and the comparison of LoRA with full fine-tuning across ranks and batch sizes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

PREAMBLE = """\
Low-rank adaptation (LoRA) fine-tunes a pretrained language model while its weights stay frozen. Beside each adapted \
weight matrix W it learns two thin matrices A and B, and the layer then computes with W + s * B * A. The rank r is \
the inner size of A and B; the factor s is alpha / r, or alpha / sqrt(r) in the rank-stabilized variant. B starts at \
zero, so that training begins exactly at the pretrained model.

How a configuration will do follows from how its values act together:
- The learning rate matters most. Too low, and a short training hardly moves the model; too high, and the loss \
oscillates or diverges. LoRA wants about ten times the rate of full fine-tuning, and more in very short runs: 1e-4 \
to 5e-4 usually works, below 1e-5 little is learned, above 2e-3 training often breaks.
- What reaches the weights is the learning rate together with the scaling alpha / r. Doubling the scaling acts much \
like a higher learning rate, so that a strong scaling with a high rate is risky and a weak scaling with a low rate \
learns next to nothing. With alpha in proportion to the rank the best rate depends little on the rank.
- The rank is capacity. A small one suffices for style and format; new knowledge, mathematics, code and much data \
gain from a larger one. More rank than needed costs memory and rarely hurts quality when the rest is right.
- The batch size trades noise for the number of updates. At a fixed amount of data a large batch leaves few updates \
and wants a higher rate; LoRA tolerates large batches less well than full fine-tuning.
- Dropout on the adapter's input regularizes. It helps with little data, many epochs and a large rank, and slows \
learning in short trainings, where none or a little is best.
- Adapting every linear layer, those of the feed-forward blocks above all, does better than adapting attention alone.
"""


@dataclass(frozen=True, slots=True)
class Guide:
    """What we know about one hyperparameter.

    Attributes:
        kind: our name of it.
        aliases: spellings of the name, compared without case and punctuation.
        sentence: one or two sentences on what it does.
        phrase: how the compact form says a value; ``{word}`` is the magnitude's word, ``{value}`` the value.
        factor: what a number is multiplied with before it is written (a rate of 3e-4 is read as 300 millionths:
            tokenizers cut small decimals into pieces that say little).
        limits: upper limits, not included, of all magnitudes but the last, ascending, in the parameter's own unit.
        words: one word for each magnitude, judged against common practice.
        zero: the whole phrase for the value 0; None where 0 is like any other.
    """

    kind: str
    aliases: tuple[str, ...]
    sentence: str
    phrase: str
    factor: float = 1.0
    limits: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    zero: str | None = None

    def __post_init__(self) -> None:
        if self.limits and len(self.words) != len(self.limits) + 1:
            raise ValueError(f"{self.kind}: {len(self.limits)} limits need one word more, got {len(self.words)}")

    def word(self, number: float) -> str:
        """The magnitude of a number."""
        return self.words[bisect_right(self.limits, number)]


SIZES = ("tiny", "very small", "small", "medium", "large", "very large", "huge")
STRENGTHS = ("very weak", "weak", "standard", "strong", "very strong", "extreme", "absurd")

RANK = Guide(
    kind="rank",
    aliases=("r", "rank", "lora_r", "lora_rank"),
    sentence="{name} is the LoRA rank r: the inner size of the two learned matrices, so the adapter's capacity and its "
    "memory grow in proportion to it; common values are 8 to 64.",
    phrase="{word} rank {value}",
    limits=(2, 5, 9, 24, 48, 100),
    words=SIZES,
)
ALPHA = Guide(
    kind="alpha",
    aliases=("alpha", "lora_alpha"),
    sentence="{name} is LoRA's alpha: the learned update is multiplied by alpha / rank, so that alpha acts only in "
    "relation to the rank; alpha equal to the rank or twice the rank is common.",
    phrase="alpha {value}",
)
SCALING = Guide(
    kind="scaling",
    aliases=("alpha_ratio", "lora_alpha_ratio", "alpha_over_rank", "scaling", "lora_scaling"),
    sentence="{name} is alpha divided by the rank, the factor on the learned update; 1 and 2 are common, and a larger "
    "one acts much like a higher learning rate.",
    phrase="{word} scaling {value}",
    limits=(0.75, 1.5, 3, 6, 12, 40),
    words=STRENGTHS,
)
VARIANT = Guide(
    kind="variant",
    aliases=("variant", "lora_variant", "adapter_variant"),
    sentence="{name} selects the form of LoRA: rslora divides alpha by the square root of the rank, so that large "
    "ranks learn faster; dora learns the magnitude of each weight column apart from its direction; pissa starts from "
    "the principal singular vectors of the weights. With a tuned learning rate they differ little.",
    phrase="{value}",
)

GUIDES: tuple[Guide, ...] = (
    Guide(
        kind="learning_rate",
        aliases=("lr", "learning_rate", "base_lr", "lora_lr", "peak_learning_rate"),
        sentence="{name} is the peak step size of the optimizer and the value that matters most; 1e-4 to 5e-4 is "
        "usual for LoRA, and differences are to be judged on a logarithmic scale.",
        phrase="{word} learning rate of {value} millionths",
        factor=1e6,
        limits=(3e-6, 1.5e-5, 4e-5, 8e-5, 2e-4, 6e-4, 2e-3),
        words=("minimal", "tiny", "very low", "low", "moderate", "high", "very high", "extreme"),
    ),
    RANK,
    ALPHA,
    SCALING,
    Guide(
        kind="batch_size",
        aliases=("batch", "batch_size", "bs", "train_batch_size", "per_device_train_batch_size", "global_batch_size"),
        sentence="{name} is the number of examples behind one update; larger batches give steadier but fewer updates "
        "and go with a higher learning rate; 8 to 32 is common for LoRA.",
        phrase="{word} batch {value}",
        limits=(3, 6, 12, 24, 48, 100),
        words=SIZES,
    ),
    Guide(
        kind="micro_batch_size",
        aliases=("micro_batch", "micro_batch_size"),
        sentence="{name} is the number of examples computed at once; it decides memory and speed and leaves the "
        "update as it is.",
        phrase="micro batch {value}",
    ),
    Guide(
        kind="gradient_accumulation",
        aliases=("gradient_accumulation", "gradient_accumulation_steps", "grad_accum", "accumulation_steps"),
        sentence="{name} is how many batches are summed into one update; it multiplies the batch size.",
        phrase="gradients accumulated over {value} batches",
    ),
    Guide(
        kind="dropout",
        aliases=("dropout", "lora_dropout", "dropout_rate", "lora_dropout_rate"),
        sentence="{name} is the share of the adapter's inputs that is zeroed at random in training; 0 to 0.1 is "
        "common, more only against overfitting.",
        phrase="{word} dropout {value}%",
        factor=100,
        limits=(0.06, 0.12, 0.17, 0.22, 0.27),
        words=("very light", "light", "moderate", "strong", "very strong", "extreme"),
        zero="no dropout",
    ),
    Guide(
        kind="epochs",
        aliases=("epochs", "epoch", "num_epochs", "n_epochs", "num_train_epochs"),
        sentence="{name} is how often the training data is passed through; one to three is common, and more passes "
        "over little data overfit.",
        phrase="{word} training of {value} epochs",
        limits=(1, 2, 4, 7, 12),
        words=("very short", "short", "medium", "long", "very long", "extremely long"),
    ),
    Guide(
        kind="steps",
        aliases=("steps", "max_steps", "num_steps", "train_steps", "training_steps", "num_train_steps"),
        sentence="{name} is the number of updates; short trainings need a higher learning rate to get anywhere.",
        phrase="{word} training of {value} steps",
        limits=(50, 200, 1000, 5000, 20000),
        words=("very short", "short", "medium", "long", "very long", "extremely long"),
    ),
    Guide(
        kind="target_modules",
        aliases=("target_modules", "lora_target_modules", "lora_modules", "targets", "modules"),
        sentence="{name} are the layers that get an adapter; all linear layers do better than the attention's query "
        "and value alone, mostly because of the feed-forward layers.",
        phrase="adapting {value}",
    ),
    Guide(
        kind="warmup_ratio",
        aliases=("warmup", "warmup_ratio", "warmup_fraction"),
        sentence="{name} is the share of the training in which the learning rate rises from zero to its peak; a "
        "little of it keeps a high learning rate stable.",
        phrase="{word} warmup of {value}%",
        factor=100,
        limits=(0.02, 0.06, 0.12),
        words=("very short", "short", "medium", "long"),
        zero="no warmup",
    ),
    Guide(
        kind="warmup_steps",
        aliases=("warmup_steps", "num_warmup_steps"),
        sentence="{name} is the number of updates in which the learning rate rises from zero to its peak; some of "
        "them keep a high learning rate stable.",
        phrase="{word} warmup of {value} steps",
        limits=(10, 50, 200),
        words=("very short", "short", "medium", "long"),
        zero="no warmup",
    ),
    Guide(
        kind="schedule",
        aliases=("schedule", "scheduler", "lr_schedule", "lr_scheduler", "lr_scheduler_type", "learning_rate_schedule"),
        sentence="{name} is how the learning rate goes on after the warmup: linear and cosine decay towards zero and "
        "usually end a little better than a constant rate.",
        phrase="{value} schedule",
    ),
    VARIANT,
    Guide(
        kind="weight_decay",
        aliases=("weight_decay", "wd", "adam_weight_decay"),
        sentence="{name} pulls the adapter's weights towards zero at each update; 0 to 0.1 is common, and its effect "
        "on short trainings is small.",
        phrase="{word} weight decay {value}",
        limits=(0.005, 0.02, 0.06, 0.15),
        words=("very light", "light", "moderate", "strong", "very strong"),
        zero="no weight decay",
    ),
    Guide(
        kind="max_grad_norm",
        aliases=("max_grad_norm", "grad_clip", "gradient_clip", "gradient_clipping", "clip_norm", "max_norm"),
        sentence="{name} is the length to which longer gradients are cut; 0.3 to 1 is common and catches single bad "
        "batches.",
        phrase="{word} gradient clipping at {value}",
        limits=(0.2, 0.7, 1.5, 5),
        words=("very tight", "tight", "usual", "loose", "very loose"),
        zero="no gradient clipping",
    ),
    Guide(
        kind="seed",
        aliases=("seed", "random_seed", "random_state"),
        sentence="{name} only selects the random numbers: results differ by chance, not by its size.",
        phrase="seed {value}",
    ),
)

NEUTRAL_SENTENCE = "{name} is a hyperparameter of this training; nothing is known about it beforehand."

MODULE_WORDS = {
    "all-linear": "all linear layers",
    "all": "all linear layers",
    "attention": "attention layers",
    "mlp": "feed-forward layers",
    **dict.fromkeys(("q", "q_proj", "query"), "query"),
    **dict.fromkeys(("k", "k_proj", "key"), "key"),
    **dict.fromkeys(("v", "v_proj", "value"), "value"),
    **dict.fromkeys(("o", "o_proj", "out_proj"), "output"),
    **dict.fromkeys(("gate", "gate_proj"), "gate"),
    **dict.fromkeys(("up", "up_proj"), "up"),
    **dict.fromkeys(("down", "down_proj"), "down"),
}
"""Names of layers in words; a name that is not here stands for itself."""

VARIANT_WORDS = {"lora": "plain LoRA", "rslora": "rank-stabilized LoRA", "dora": "DoRA", "pissa": "PiSSA"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_ALIAS = {_plain(alias): guide for guide in GUIDES for alias in guide.aliases}
ORDER = {guide.kind: i for i, guide in enumerate(GUIDES)}
"""Place of each kind in a prompt, whatever the order in the Experiment."""


def guide_for(name: str) -> Guide | None:
    """What is known about the parameter of this name; None for one that we do not know.

    ``learningRate``, ``learning-rate`` and ``lr`` are the same parameter.
    """
    return _BY_ALIAS.get(_plain(name))
