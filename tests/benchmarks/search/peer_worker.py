"""Optimizers that live in a virtual environment of their own, behind lines of JSON on standard input and output.

Run by :mod:`benchmarks.search.outside` with that environment's Python; imports nothing of this project.

    {"do": "probe", "peer": "smac"}                       -> {"versions": {"smac": "2.4.1"}}
    {"do": "start", "peer": "smac", "seed": 1, "budget": 30, "settings": {}, "dimensions":
        [{"name": "rank", "low": 2, "high": 128, "log": true}, …]}      -> {}
    {"do": "ask"}                                         -> {"values": {"rank": 17.3, …}}
    {"do": "tell", "values": {"rank": 16, …}, "value": 1.9}     (null: the trial failed)  -> {}

Whatever goes wrong is answered as {"error": "…"}.

Failed trials: SMAC is told ``CRASHED`` with the worst value so far as the cost (by default it would be infinite, which
its model cannot be trained on; crashed trials are part of the model's data), HEBO, which knows no failures, the worst
value so far. Failures before the first value wait for it. The automatic sampler of Optuna is told ``FAIL``, which the
sampler that it takes here leaves out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import warnings


class Imputed:
    """Keeps failures back until there is a value to tell of them."""

    def __init__(self):
        self._worst = None
        self._waiting = []

    def due(self, values, value):
        """What can be told now: (values, value, failed)."""
        if value is None and self._worst is None:
            self._waiting.append(values)
            return []
        if value is None:
            return [(values, self._worst, True)]
        self._worst = value if self._worst is None else max(self._worst, value)
        waiting, self._waiting = self._waiting, []
        return [(values, value, False), *((early, self._worst, True) for early in waiting)]


class Smac:
    """SMAC3's facade for hyperparameters: random forest, logarithmic EI, Sobol points first (a quarter at most)."""

    packages = ("smac", "ConfigSpace", "scikit-learn", "numpy")

    def __init__(self, dimensions, seed, budget, settings):
        from ConfigSpace import ConfigurationSpace, Float
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario
        from smac.main.config_selector import ConfigSelector

        self._folder = tempfile.TemporaryDirectory()
        self._space = ConfigurationSpace(seed=seed)
        self._space.add([Float(d["name"], (d["low"], d["high"]), log=d["log"]) for d in dimensions])
        # Proposals that were moved to a measured configuration stay "running" in its books, for nothing: room for them.
        scenario = Scenario(
            self._space, n_trials=budget, deterministic=True, seed=seed, output_directory=self._folder.name
        )
        again = int(settings.get("retrain_after", 8))
        selector = ConfigSelector(scenario, retrain_after=again)
        self._facade = Facade(
            scenario, lambda config, seed=0: 0.0, config_selector=selector, overwrite=True, logging_level=50
        )
        self._imputed = Imputed()
        self._seed = None

    def ask(self):
        info = self._facade.ask()
        self._seed = info.seed
        return {name: float(value) for name, value in dict(info.config).items()}

    def tell(self, values, value):
        from ConfigSpace import Configuration
        from smac.runhistory import StatusType, TrialInfo, TrialValue

        for told, cost, failed in self._imputed.due(values, value):
            state = StatusType.CRASHED if failed else StatusType.SUCCESS
            trial = TrialInfo(Configuration(self._space, values=told), seed=self._seed)
            self._facade.tell(trial, TrialValue(cost=cost, status=state), save=False)


class Hebo:
    """HEBO with its defaults: warped Gaussian process, a front of three acquisitions found by evolution."""

    packages = ("HEBO", "GPy", "pymoo", "torch", "numpy")

    def __init__(self, dimensions, seed, budget, settings):
        import numpy as np
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        np.random.seed(seed % 2**32)  # HEBO and GPy draw from the global generators  # noqa: NPY002
        torch.manual_seed(seed)
        self._dimensions = dimensions
        space = DesignSpace().parse(
            [
                {"name": d["name"], "type": "pow" if d["log"] else "num", "lb": d["low"], "ub": d["high"]}
                for d in dimensions
            ]
        )
        self._optimizer = HEBO(space, scramble_seed=seed)
        self._imputed = Imputed()

    def ask(self):
        row = self._optimizer.suggest(1).iloc[0]
        return {d["name"]: min(max(float(row[d["name"]]), d["low"]), d["high"]) for d in self._dimensions}

    def tell(self, values, value):
        import numpy as np
        import pandas as pd

        for told, cost, _ in self._imputed.due(values, value):
            self._optimizer.observe(pd.DataFrame([told]), np.array([[cost]]))


class OptunaAuto:
    """OptunaHub's AutoSampler. OptunaHub fetches a sampler's code from its registry when it is first asked for."""

    packages = ("optunahub", "optuna")

    def __init__(self, dimensions, seed, budget, settings):
        import optuna
        import optunahub

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            module = optunahub.load_module("samplers/auto_sampler")
        except Exception as error:
            raise RuntimeError(f"OptunaHub's registry cannot be reached ({type(error).__name__})") from None
        self._sampler = module.AutoSampler(seed=seed)
        self._distributions = {
            d["name"]: optuna.distributions.FloatDistribution(d["low"], d["high"], log=d["log"]) for d in dimensions
        }
        self._trials = []

    def ask(self):
        import optuna

        study = optuna.create_study(direction="minimize", sampler=self._sampler)
        for trial in self._trials:
            study.add_trial(trial)
        return study.ask(self._distributions).params

    def tell(self, values, value):
        import optuna

        facts = {"params": values, "distributions": self._distributions}
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        self._trials.append(optuna.trial.create_trial(state=state, value=value, **facts))


PEERS = {"smac": Smac, "hebo": Hebo, "optuna-auto": OptunaAuto}
_PROBE = [{"name": "x", "low": 0.0, "high": 1.0, "log": False}, {"name": "y", "low": 1.0, "high": 9.0, "log": True}]


def answer(peers, message):
    """Do what one line says."""
    do = message["do"]
    if do == "probe":
        kind = PEERS[message["peer"]]
        kind(_PROBE, 0, 8, {}).ask()
        return {"versions": {package: importlib.metadata.version(package) for package in kind.packages}}
    if do == "start":
        kind = PEERS[message["peer"]]
        peers["now"] = kind(message["dimensions"], message["seed"], message["budget"], message["settings"])
        return {}
    if do == "ask":
        return {"values": peers["now"].ask()}
    if do == "tell":
        peers["now"].tell(message["values"], message["value"])
        return {}
    return {"error": f"nothing to do for {do!r}"}


def main():
    """Answer line by line until the input ends."""
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    peers = {}
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                said = answer(peers, json.loads(line))
        except BaseException as error:
            first = next(iter(str(error).strip().splitlines()), "")
            said = {"error": first if type(error) is RuntimeError else f"{type(error).__name__}: {first}"}
        out.write(json.dumps(said) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
