from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rankwise.errors import InvalidInput
from rankwise.train.adapter import save_adapter
from rankwise.train.model import choose_device, choose_precision
from support.trainings import options, trainee, training


def adapted(made: object) -> set[str]:
    return {
        name.split(".lora_A")[0].rsplit(".", 1)[-1]
        for name, _ in made.peft.named_parameters()  # type: ignore[attr-defined]
        if ".lora_A" in name
    }


ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", ALL), ("all-linear", ALL), ("q_proj,v_proj", {"q_proj", "v_proj"}), ("mlp.up_proj", {"up_proj"})],
)
def test_target_modules_of_a_causal_model(
    text: str, expected: set[str], llama: Path, data: Path, tmp_path: Path
) -> None:
    assert adapted(trainee(options(llama, data, "--target-modules", text), tmp_path)) == expected


def test_target_modules_of_a_random_t5_are_q_and_v(t5: Path, data: Path, tmp_path: Path) -> None:
    assert adapted(trainee(options(t5, data, "--task", "seq2seq"), tmp_path)) == {"q", "v"}


def test_every_wrong_target_is_told_with_what_the_model_has(llama: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="down_proj, gate_proj") as caught:
        trainee(options(llama, data, "--target-modules", "q_proj,query,proj"), tmp_path)
    assert [p.value for p in caught.value.problems] == ["query", "proj"]


@pytest.mark.parametrize(
    ("variant", "scaling"), [("lora", 12 / 4), ("dora", 12 / 4), ("pissa", 12 / 4), ("rslora", 12 / 4**0.5)]
)
def test_a_variants_scale_and_first_output(
    variant: str, scaling: float, llama: Path, data: Path, tmp_path: Path
) -> None:
    config = options(llama, data, "--variant", variant, "--rank", "4", "--alpha", "12")
    made = trainee(config, tmp_path)
    layer = made.base.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(scaling)
    assert layer.lora_A["default"].weight.shape == (4, 32)
    if variant == "dora":
        assert "lora_magnitude_vector" in " ".join(made.trainable())
    if variant == "pissa":
        assert layer.lora_B["default"].weight.abs().max() > 0
        assert made.initial.keys() == made.trainable().keys()
    # Every variant starts as the pretrained model. PiSSA takes W apart and puts it together: some float32 roundings.
    ids = torch.arange(3, 20)[None]
    expected = AutoModelForCausalLM.from_pretrained(llama)(input_ids=ids).logits
    made.peft.eval()
    torch.testing.assert_close(made.base(input_ids=ids).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_a_saved_adapter_works_on_the_unchanged_model(variant: str, llama: Path, data: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    made = training(options(llama, data, "--variant", variant, "--steps", "5", "--learning-rate", "1e-2"), tmp_path)
    made.run()
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(made.trainee, "package:some-model", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(llama) not in (folder / "adapter_config.json").read_text()
    base = AutoModelForCausalLM.from_pretrained(llama)
    ids = torch.arange(3, 20)[None]
    plain = base(input_ids=ids).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that is to go
        loaded = PeftModel.from_pretrained(base, folder).eval()(input_ids=ids).logits
    made.trainee.peft.eval()
    wanted = made.trainee.base(input_ids=ids).logits
    torch.testing.assert_close(loaded, wanted, atol=1e-4, rtol=0)  # PiSSA's two forms round differently
    assert (loaded - plain).abs().max() > 1e-2


def test_a_cut_keeps_the_first_layers(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data, "--num-layers", "1"), tmp_path)
    assert len(made.base.model.layers) == 1
    whole = AutoModelForCausalLM.from_pretrained(llama)
    base = made.base.model.layers[0].mlp.up_proj.get_base_layer().weight
    assert torch.equal(base, whole.model.layers[0].mlp.up_proj.weight)


def test_a_cut_of_a_random_t5_cuts_both_sides(t5: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(t5, data, "--task", "seq2seq", "--num-layers", "1"), tmp_path)
    assert (len(made.base.encoder.block), len(made.base.decoder.block)) == (1, 1)


def test_every_mistake_about_the_model_is_told(llama: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="allowed: causal: that is what this model") as caught:
        trainee(options(llama, data, "--task", "seq2seq", "--num-layers", "3"), tmp_path)
    assert [p.path for p in caught.value.problems] == ["--task", "--num-layers"]


def test_a_model_with_missing_weights_is_refused(llama: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(llama, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"1 are missing, e\.g\. model\.layers\.1\.mlp\.up_proj\.weight"):
        trainee(options(broken, data), tmp_path)
    # What a cut leaves out may be missing.
    trainee(options(broken, data, "--num-layers", "1"), tmp_path)


def test_bfloat16_keeps_the_adapter_in_float32(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data, "--precision", "bf16"), tmp_path)
    assert made.autocast == torch.bfloat16
    assert {p.dtype for p in made.trainable().values()} == {torch.float32}
    assert {p.dtype for p in made.peft.parameters() if not p.requires_grad} == {torch.bfloat16}
    pissa = trainee(options(llama, data, "--precision", "bf16", "--variant", "pissa"), tmp_path)
    assert {p.dtype for p in pissa.peft.parameters()} == {torch.float32}


def test_bfloat16_gives_nearly_the_same_loss(llama: Path, data: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        made = training(options(llama, data, "--steps", "10", "--precision", precision), tmp_path)
        made.run()
        losses.append(made.measured["loss"].value)
    # bfloat16 has 8 bits: a loss near 5.8 of logits below 1 moves by about 2**-8 of these.
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]


def test_auto_precision_asks_for_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for tiles, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles)
        assert choose_precision("auto", cpu) == expected
        assert choose_precision("fp32", cpu) == torch.float32
        assert choose_precision("bf16", cpu) == torch.bfloat16


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(InvalidInput, match="no CUDA device can be used here"):
        choose_device("cuda")
