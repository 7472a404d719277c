"""The command line, from what was measured to what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_suggest import __main__ as bench
from benchmarks.bench_suggest import ours, worker
from benchmarks.bench_suggest.rounds import Cell, Sample
from rankwise.language.cache import VectorCache
from support.fake_encoder import FakeEncoder


def test_one_table_is_printed_and_every_sample_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [
        Cell("ours", 10, {0: Sample(2.0, 1.0, 2**30), 1: Sample(4.0, 1.0, 2**30)}),
        Cell("ours-paper-token", 10, reason="not measured (over 60 s)"),
        Cell("botorch", 10, {0: Sample(1.0, 1.0, 2**29), 1: Sample(1.0, 1.0, 2**29)}),
    ]
    embedding = [Cell("embed-minilm", 0, {0: Sample(5.0, 5.0, 2**29, details={"texts": 512, "of": 45360})})]
    monkeypatch.setattr(bench.Bench, "suggestions", lambda self: cells)
    monkeypatch.setattr(bench.Bench, "embeddings", lambda self: embedding)
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (4.0, 4.0, 4.0))
    path = tmp_path / "found.json"
    assert bench.main(["--parts", "suggestion", "embedding", "--output", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.count("| observations | method |") == 1
    assert "| 10 | language-bo, defaults: its models | 3.00 (2.00–4.00) |" in said
    assert "not measured (over 60 s)" in said
    assert "4.0 before" in said
    assert "other work was on the machine" in said
    assert "Vectors are made-up." in said
    assert "**extrapolated** to 45360 from 512 texts, once | 443 | 443 |" in said
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["suggestion"][0]["samples"]["1"]["wall"] == 4.0
    assert written["suggestion"][1]["reason"] == "not measured (over 60 s)"
    assert {"cores", "torch", "optuna"} <= set(written["machine"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--observations", "0"], "--observations: numbers from 1 to 100"),
        (["--observations", "101"], "--observations: numbers from 1 to 100"),
        (["--rounds", "0"], "--rounds"),
        (["--limit", "0"], "--limit: seconds greater than 0"),
        (["--methods", "nothing"], "--methods"),
    ],
)
def test_wrong_arguments_are_refused(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.parse(given)
    assert said in capsys.readouterr().err


def test_without_arguments_everything_is_measured() -> None:
    arguments = bench.parse([])
    assert tuple(arguments.parts) == bench.PARTS
    assert arguments.observations == [1, 10, 30, 100]
    assert (arguments.rounds, arguments.limit, arguments.experiments) == (3, 60.0, 100)


def test_made_up_vectors_tell_the_configurations_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the space is in the cache of both encoders, and no vector is another one's."""
    fakes = {
        reference: FakeEncoder(dimension) for reference, dimension in ((ours.DEFAULT_EMBEDDER, 6), (ours.DECODER, 8))
    }
    monkeypatch.setattr("rankwise.language.encoder.load_encoder", lambda reference, cache: fakes[reference])
    worker.fill(tmp_path, "made-up")
    for encoder in fakes.values():
        texts = ours.paper_texts(encoder)
        vectors, found = VectorCache(tmp_path, encoder.identity, encoder.dimension).get(texts)
        assert found.all()
        assert len(np.unique(vectors, axis=0)) == len(texts) == 45_360
        assert not encoder.asked
