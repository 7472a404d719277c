"""The paper's method by its settings, each part switched on and off, with a real (tiny) decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contract.strategy_contract import LOSS, check, tried
from rankwise.errors import InvalidInput
from rankwise.language.encoder import load_encoder
from rankwise.language.learnable_token import TokenEncoder
from rankwise.language.prompt import PromptForm
from rankwise.space import ParameterText, parse_space
from rankwise.strategies import models
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.language_bo import LanguageBO, embedding_plan
from support.encoders import FakeEncoder
from support.tiny_models import tiny_llama

SPACE = parse_space(
    [
        ParameterText("rank", "discrete", list=("2", "8", "32")),
        ParameterText("learning_rate", "discrete", list=("1e-5", "1e-4", "1e-3", "1e-2")),
    ]
)
PAPER = {
    "surrogate": "paper",
    "embedder": "a decoder",
    "acquisition": "ei",
    "initial_points": "1",
    "initial_design": "random",
    "prior": "none",
    "paper_steps": "3",
    "projection_dim": "8",
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> TokenEncoder:
    folder: Path = tmp_path_factory.mktemp("llama")
    config = tiny_llama(folder / "model") / "config.json"
    # The whole prompt is longer than what the tiny models are made for; rotary positions need no weights.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    encoder = load_encoder(str(config.parent), cache=folder / "cache")
    assert isinstance(encoder, TokenEncoder)
    return encoder


class Watched:
    """The real encoder, with a count of what it embeds."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self._encoder = encoder
        self.identity, self.dimension, self.form = encoder.identity, encoder.dimension, encoder.form
        self.plain: list[str] = []
        self.with_token: list[str] = []
        self.kept: list[str] = []

    def encode(self, texts, deadline=None):  # type: ignore[no-untyped-def]
        self.plain += texts
        return self._encoder.encode(texts, deadline)

    def initial_token(self):  # type: ignore[no-untyped-def]
        return self._encoder.initial_token()

    def token_states(self, texts, deadline=None, most_bytes=2**30):  # type: ignore[no-untyped-def]
        self.kept += texts
        return self._encoder.token_states(texts, deadline, most_bytes)

    def encode_with_token(self, texts, psi, deadline=None):  # type: ignore[no-untyped-def]
        self.with_token += texts
        return self._encoder.encode_with_token(texts, psi, deadline)


def ask(encoder: object, count: int = 1, n: int = 4, **changes: str) -> Suggestions:
    trials = tried(SPACE, n)
    request = SuggestRequest("paper", SPACE, LOSS, {**PAPER, **changes}, tuple(trials), count, n)
    answer = LanguageBO(lambda reference, pooling: encoder).suggest(request)  # type: ignore[arg-type,return-value]
    check(SPACE, answer, trials, count)
    return answer


@pytest.mark.parametrize("token", ["on", "off"])
@pytest.mark.parametrize("projection", ["on", "off"])
@pytest.mark.parametrize("prompt", ["on", "off"])
def test_every_part_can_be_switched_off(decoder: TokenEncoder, token: str, projection: str, prompt: str) -> None:
    encoder = Watched(decoder)
    settings = {"learnable_token": token, "projection": projection, "domain_prompt": prompt}
    answer = ask(encoder, 2, **settings)
    assert answer.fallback is None
    assert answer.assignments == ask(Watched(decoder), 2, **settings).assignments
    # All 12 configurations by their frozen vectors; with the token the 4 observed ones are kept and the 8 others
    # embedded once more.
    assert len(set(encoder.plain)) == 12
    assert (len(encoder.kept), len(encoder.with_token)) == ((4, 8) if token == "on" else (0, 0))
    assert any("Low-rank adaptation" in text for text in encoder.plain) == (prompt == "on")


def test_a_shortlist_is_scored_exactly(decoder: TokenEncoder) -> None:
    encoder = Watched(decoder)
    answer = ask(encoder, 2, learnable_token="on", token_candidates="3")
    assert len(encoder.with_token) == 3
    assert answer.fallback is None


def test_an_encoder_without_a_place_for_a_token_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(FakeEncoder(), learnable_token="on")
    (problem,) = caught.value.problems
    assert problem.path.endswith(".learnable_token")
    assert "decoder" in problem.allowed


def test_the_first_point_is_a_random_one(decoder: TokenEncoder) -> None:
    request = SuggestRequest("paper", SPACE, LOSS, PAPER, (), 1)
    seeds = {
        str(LanguageBO(lambda *_: decoder).suggest(SuggestRequest(**{**vars(request), "experiment": f"e{i}"})))
        for i in range(8)
    }
    # Twelve configurations: eight draws that are all equal have a probability of 12⁻⁷.
    assert len(seeds) > 1


def test_outcomes_are_standardized_and_no_more(decoder: TokenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    real = models.fit_paper_kernel

    def watched(vectors, y, settings, deadline):  # type: ignore[no-untyped-def]
        seen.append(y)
        return real(vectors, y, settings, deadline)

    monkeypatch.setattr(models, "fit_paper_kernel", watched)
    ask(decoder)
    values = np.sort([trial.value for trial in tried(SPACE, 4)])
    np.testing.assert_allclose(np.sort(seen[0]), (values - values.mean()) / values.std(), rtol=1e-12)


def test_what_is_embedded_ahead_is_what_is_read(decoder: TokenEncoder) -> None:
    for prompt in ("on", "off"):
        request = SuggestRequest("paper", SPACE, LOSS, {**PAPER, "domain_prompt": prompt}, (), 1)
        text = embedding_plan(request).prompt(PromptForm.FULL).head
        assert ("Low-rank adaptation" in text) == (prompt == "on")
