from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.language.guide import GUIDES, PREAMBLE, Guide, guide_for
from rankwise.language.prompt import MAX_TEXT_BYTES, PREFIX_END, PromptForm, describe, describe_all, load_prompt
from rankwise.space import ParameterText, SearchSpace, parse_space
from support.paper_space import paper_space


def categorical(**values: str) -> SearchSpace:
    return parse_space([ParameterText(name, "categorical", list=(value,)) for name, value in values.items()])


def compact(**values: str) -> str:
    space = categorical(**values)
    return describe(load_prompt(None, space, PromptForm.COMPACT), space, values)


def lines(**values: str) -> str:
    space = categorical(**values)
    return describe(load_prompt(None, space, PromptForm.FULL), space, values).rpartition(PREFIX_END)[2]


# -- the compact form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"learning_rate": "3e-4"}, "high learning rate of 300 millionths."),
        ({"lr": "0.00025"}, "high learning rate of 250 millionths."),
        ({"learningRate": "1e-6"}, "minimal learning rate of 1 millionths."),
        ({"lr": "5e-3"}, "extreme learning rate of 5000 millionths."),
        ({"lora_r": "8"}, "small rank 8."),
        ({"lora_rank": "256", "lora_alpha": "16"}, "huge rank 256, very weak scaling 0.0625."),
        ({"alpha": "32", "r": "16"}, "medium rank 16, standard scaling 2."),
        ({"alpha": "32"}, "alpha 32."),
        ({"alpha_ratio": "0.5"}, "very weak scaling 0.5."),
        ({"alpha": "64", "r": "16", "variant": "rslora"}, "medium rank 16, extreme scaling 16, rank-stabilized LoRA."),
        (
            {"alpha_ratio": "2", "r": "16", "variant": "rslora"},
            "medium rank 16, very strong scaling 8, rank-stabilized LoRA.",
        ),
        ({"alpha": "64", "r": "16", "variant": "dora"}, "medium rank 16, strong scaling 4, DoRA."),
        ({"lora_dropout": "0"}, "no dropout."),
        ({"lora_dropout": "0.05"}, "very light dropout 5%."),
        ({"per_device_train_batch_size": "4"}, "very small batch 4."),
        ({"num_train_epochs": "3"}, "medium training of 3 epochs."),
        ({"max_steps": "30"}, "very short training of 30 steps."),
        ({"warmup_ratio": "0.03"}, "short warmup of 3%."),
        ({"lr_scheduler_type": "cosine"}, "cosine schedule."),
        ({"target_modules": "q_proj,v_proj"}, "adapting query value."),
        ({"target_modules": "all-linear"}, "adapting all linear layers."),
        ({"target_modules": "['q', 'fc1']"}, "adapting query fc1."),
        ({"weight_decay": "0.01"}, "light weight decay 0.01."),
        ({"max_grad_norm": "1.0"}, "usual gradient clipping at 1."),
        ({"lr": "auto"}, "learning rate auto."),
        ({"rank": "auto", "alpha": "16"}, "rank auto, unknown scaling."),
        ({"neftune_noise-alpha": "5"}, "neftune noise alpha 5."),
        ({"x{0}%s": "a b"}, "x 0 s a b."),
        ({"_": "1"}, "_ 1."),
    ],
)
def test_compact_text(values: dict[str, str], text: str) -> None:
    assert compact(**values) == text


def test_compact_text_of_the_papers_space() -> None:
    space = paper_space()
    prompt = load_prompt(None, space, PromptForm.COMPACT)
    assert prompt.head == ""
    values = {"learning_rate": "2e-5", "rank": "64", "alpha_ratio": "8", "dropout": "0.15", "batch_size": "4"}
    assert describe(prompt, space, values) == (
        "very low learning rate of 20 millionths, very large rank 64, very strong scaling 8, very small batch 4, "
        "moderate dropout 15%."
    )


# -- the full form -------------------------------------------------------------------------------------------------


def test_full_text_has_preamble_guide_and_lines() -> None:
    space = paper_space()
    prompt = load_prompt(None, space)
    values = {"learning_rate": "2e-5", "rank": "64", "alpha_ratio": "8", "dropout": "0.15", "batch_size": "4"}
    text = describe(prompt, space, values)
    head, _, configuration = text.rpartition(PREFIX_END)
    assert head + PREFIX_END == prompt.head
    assert head.startswith(PREAMBLE.strip() + "\n\nParameter guide:\n- learning_rate is the peak step size")
    assert [line.split()[1] for line in head.splitlines() if line in prompt.sentences] == [
        "learning_rate",
        "rank",
        "alpha_ratio",
        "batch_size",
        "dropout",
    ]
    assert configuration == "learning_rate = 2e-5\nrank = 64\nalpha_ratio = 8\nbatch_size = 4\ndropout = 0.15\n"


def test_full_text_tells_the_scaling_that_follows_from_rank_and_alpha() -> None:
    assert lines(lora_alpha="32", r="16") == "r = 16\nlora_alpha = 32\nalpha / rank = 2\n"
    assert lines(lora_alpha="32", r="0") == "r = 0\nlora_alpha = 32\nalpha / rank = unknown\n"


def test_unknown_parameters_get_a_neutral_sentence_and_stand_last_by_name() -> None:
    space = categorical(zeta="1", lr="1e-4", beta="x")
    prompt = load_prompt(None, space)
    assert prompt.sentences[0].startswith("- lr is the peak step size")
    assert prompt.sentences[1:] == (
        "- beta is a hyperparameter of this training; nothing is known about it beforehand.",
        "- zeta is a hyperparameter of this training; nothing is known about it beforehand.",
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.0003", "3e-4"),
        ("3E-4", "3e-4"),
        ("0.00012345", "1.2345e-4"),
        ("0.05", "0.05"),
        ("0.001", "0.001"),
        ("16.0", "16"),
        ("-0.0005", "-5e-4"),
        ("1e-7", "1e-7"),
        ("12345678.5", "1.23456785e7"),
        ("0", "0"),
    ],
)
def test_full_text_has_all_digits_of_a_number(number: str, text: str) -> None:
    space = parse_space([ParameterText("x", "discrete", list=(number,))])
    prompt = load_prompt(None, space)
    assert describe(prompt, space, {"x": number}).endswith(f"{PREFIX_END}x = {text}\n")


# -- both forms ----------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("form", list(PromptForm))


@both
def test_text_does_not_depend_on_the_order_of_parameters_or_the_spelling_of_numbers(form: PromptForm) -> None:
    first = parse_space([ParameterText("lr", "double", "1e-5", "1e-3"), ParameterText("r", "int", "1", "64")])
    second = parse_space([ParameterText("r", "int", "1", "64"), ParameterText("lr", "double", "0.00001", "0.001")])
    texts = {
        describe(load_prompt(None, space, form), space, values)
        for space in (first, second)
        for values in ({"lr": "3e-4", "r": "16"}, {"r": "16", "lr": "0.00030"})
    }
    assert len(texts) == 1


@both
def test_every_point_of_the_papers_space_has_its_own_text(form: PromptForm) -> None:
    space = paper_space()
    prompt, points = load_prompt(None, space, form), space.enumerate()
    texts = describe_all(prompt, space, points)
    assert len(texts) == len(set(texts)) == 45360
    for i in (0, 1, 12345, 45359):
        assert texts[i] == describe(prompt, space, points.assignments(i))
    # What the compact form is for: no text is long. Tokens are at most pieces of words and numbers.
    if form is PromptForm.COMPACT:
        assert max(len(re.findall(r"\w+|\W", text.replace(" ", ""))) for text in texts) <= 48


names = st.sampled_from(["r", "lora_alpha", "alpha_ratio", "variant", "lr", "dropout", "steps", "my_own", "other"])


def parameters(name: str) -> list[ParameterText]:
    return [
        ParameterText(name, "double", "1e-5", "0.1", distribution="logUniform"),
        ParameterText(name, "double", "-1", "1", "0.0625"),
        ParameterText(name, "int", "0", "128", "4"),
        ParameterText(name, "discrete", list=("0.1", "1", "2.5")),
        ParameterText(name, "categorical", list=("rslora", "lora", "1e-4", "nan", "ψ {value}")),
    ]


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    chosen = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    return parse_space([draw(st.sampled_from(parameters(name))) for name in chosen])


@settings(max_examples=40, deadline=None)
@given(space=spaces(), form=st.sampled_from(list(PromptForm)), seed=st.integers(0, 100))
def test_all_at_once_equals_one_by_one(space: SearchSpace, form: PromptForm, seed: int) -> None:
    prompt = load_prompt(None, space, form)
    points = space.candidates(20, seed)
    texts = describe_all(prompt, space, points)
    assert texts == [describe(prompt, space, assignments) for assignments in points]
    for text in texts:
        assert text.startswith(prompt.head)
        assert "{" not in text.replace("ψ {value}", "")
        assert "  " not in text


def test_points_that_are_not_in_the_space_are_refused() -> None:
    space, other = categorical(lr="1e-4"), categorical(r="1")
    prompt = load_prompt(None, space)
    with pytest.raises(ValueError, match="no value of parameter 'lr'"):
        describe(prompt, space, {"lr": "2e-4"})
    with pytest.raises(ValueError, match="another space"):
        describe_all(prompt, space, other.enumerate())


# -- a user's own text ---------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("given", ["We train on poems.\nSmall ranks do.", "plain words", "50% of 1/2 is fine"])
def test_own_text_replaces_the_preamble(form: PromptForm, given: str) -> None:
    space = categorical(lr="1e-4")
    prompt = load_prompt(given, space, form)
    assert prompt.own
    assert prompt.head.startswith(given + PREFIX_END)
    assert PREAMBLE.strip() not in prompt.head
    assert ("Parameter guide" in prompt.head) == (form is PromptForm.FULL)
    assert describe(prompt, space, {"lr": "1e-4"}).startswith(prompt.head)


def test_no_text_means_ours() -> None:
    prompt = load_prompt(None, categorical(lr="1e-4"))
    assert load_prompt("", categorical(lr="1e-4")) == prompt
    assert (prompt.form, prompt.preamble, prompt.own) == (PromptForm.FULL, PREAMBLE, False)


def test_own_text_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "our domain.txt"
    path.write_text("Poems, ψ and all.\n\nMore.\n", encoding="utf-8")
    prompt = load_prompt(str(path), categorical(lr="1e-4"), PromptForm.COMPACT)
    assert prompt.head == "Poems, ψ and all.\n\nMore." + PREFIX_END


@pytest.mark.parametrize(
    ("content", "allowed"),
    [
        (None, "an existing text file"),
        (b"\xff\xfe", "UTF-8"),
        (b" \n\t", "not blank"),
        (b"a" * (MAX_TEXT_BYTES + 1), f"at most {MAX_TEXT_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_contents(
    tmp_path: Path, content: bytes | None, allowed: str
) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=allowed) as caught:
        load_prompt(str(path), categorical(lr="1e-4"), path="algorithmSettings.prompt")
    [problem] = caught.value.problems
    assert problem.path == "algorithmSettings.prompt"
    assert "aaaa" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [(" ", "not blank"), ("a\n" * MAX_TEXT_BYTES, "at most"), ("/" + "a" * 5000, "can be read|existing")],
)
def test_wrong_own_texts_are_told(text: str, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=allowed) as caught:
        load_prompt(text, categorical(lr="1e-4"))
    assert len(str(caught.value)) < 250


# -- the guide -----------------------------------------------------------------------------------------------------


def spellings(alias: str) -> Sequence[str]:
    parts = alias.split("_")
    return (alias, alias.upper(), "-".join(parts), parts[0] + "".join(part.title() for part in parts[1:]))


def test_every_alias_belongs_to_one_guide() -> None:
    plain = [re.sub("_", "", alias) for guide in GUIDES for alias in guide.aliases]
    assert len(plain) == len(set(plain))
    for guide in GUIDES:
        for alias in guide.aliases:
            for spelling in spellings(alias):
                assert guide_for(spelling) is guide, spelling
    assert guide_for("temperature") is None
    assert guide_for("") is None


def test_every_guide_is_complete() -> None:
    assert len({guide.kind for guide in GUIDES}) == len(GUIDES)
    for guide in GUIDES:
        assert guide.sentence.startswith("{name} ")
        assert guide.sentence.endswith(".")
        assert "{value}" in guide.phrase
        assert ("{word}" in guide.phrase) == bool(guide.limits)
        assert list(guide.limits) == sorted(set(guide.limits))


def test_words_change_at_the_limits() -> None:
    guide = Guide("x", (), "", "{word} {value}", limits=(1, 10), words=("low", "middle", "high"))
    assert [guide.word(x) for x in (-5, 0.99, 1, 9.99, 10, 1e9)] == ["low", "low", "middle", "middle", "high", "high"]
    with pytest.raises(ValueError, match="2 limits need one word more, got 2"):
        Guide("x", (), "", "", limits=(1, 10), words=("low", "high"))
