"""The search space of arXiv 2602.11171 (its released code): 10 × 9 × 9 × 8 × 7 = 45,360 points."""

from __future__ import annotations

from rankwise.space import ParameterText, SearchSpace, parse_space

LEARNING_RATES = ("1e-6", "5e-6", "2e-5", "3e-5", "5e-5", "1e-4", "3e-4", "4e-4", "5e-4", "5e-3")
RANKS = ("1", "2", "4", "8", "16", "32", "64", "128", "256")
ALPHA_RATIOS = ("0.5", "1", "2", "4", "8", "16", "32", "64", "128")
BATCH_SIZES = ("2", "4", "8", "16", "32", "64", "128", "256")
DROPOUTS = ("0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3")


def paper_space() -> SearchSpace:
    return parse_space(
        [
            # A list of numbers, as a Katib Experiment has it.
            ParameterText("learning_rate", "categorical", list=LEARNING_RATES),
            ParameterText("rank", "discrete", list=RANKS),
            ParameterText("alpha_ratio", "discrete", list=ALPHA_RATIOS),
            ParameterText("batch_size", "discrete", list=BATCH_SIZES),
            ParameterText("dropout", "discrete", list=DROPOUTS),
        ]
    )
