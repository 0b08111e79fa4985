"""Frozen text models: which of their states are taken, features kept once, and whole runs that listen to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import Hub
from PIL import Image

from retina_diffusion import kept, precomputed, subject, textmodel, train
from retina_diffusion.__main__ import main
from retina_diffusion.captionstore import CaptionStore
from retina_diffusion.config import Config
from retina_diffusion.frozen import Source
from retina_diffusion.model_config import Text
from retina_diffusion.photographs import Collate, condition
from retina_diffusion.textmodel import TextModel
from shared_core import config as configuration
from shared_core import report
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime

pytest_plugins = ("hub_fixtures",)

CPU, TOKENS, DIM = torch.device("cpu"), 6, 16
LAYERS = {"hidden_size": DIM, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5EncoderModel", {"d_model": DIM, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}),
    "t5 whole": (
        "T5ForConditionalGeneration",
        {"d_model": DIM, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    ),
    "bert": ("BertModel", LAYERS),
    "gemma": ("GemmaForCausalLM", {**LAYERS, "num_key_value_heads": 1, "head_dim": 8}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": DIM, "n_layer": 2, "n_head": 2, "n_positions": 64}),
}
DECODERS = ("gemma", "gpt2")
SPECIAL = ["<pad>", "</s>", "<unk>"]
WORDS = [
    *("no", "mild", "moderate", "severe", "proliferative", "non", "diabetic", "retinopathy"),
    *("of", "a", "fundus", "with", "and", "without"),
]
CAPTIONS = ["", "no diabetic retinopathy", "mild non proliferative diabetic retinopathy with and without", "severe"]


def save_text(folder: Path, kind: str, seed: int = 0, limit: int = 1000) -> Any:
    """A small text model with random weights, and a tokenizer of `WORDS` that makes nothing of an empty text."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(seed)
    name, options = KINDS[kind]
    maker = getattr(transformers, name)
    made = maker(maker.config_class(vocab_size=40, bos_token_id=1, eos_token_id=1, **options)).eval()
    made.save_pretrained(folder)
    numbers = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    plain = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=limit, **special)
    tokenizer.save_pretrained(folder)
    return made


def wanted(folder: Path, **changed: Any) -> Text:
    return Text(**{"encoder": "hub", "model": str(folder), "tokens": TOKENS, "dim": DIM, **changed})


def load(folder: Path, **changed: Any) -> TextModel:
    return TextModel.load(Source.of("text.model", str(folder)), wanted(folder, **changed), CPU)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    save_text(folder, "gemma")
    return folder


# the text model


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_states_that_are_meant(tmp_path: Path, kind: str) -> None:
    """Against the library called by hand, a caption at a time and without padding."""
    whole = save_text(tmp_path, kind)
    own = load(tmp_path)
    found = own.features(CAPTIONS)
    assert own.is_decoder == (kind in DECODERS)
    encoder = (
        whole.get_encoder() if kind == "t5 whole" else getattr(whole, "model", getattr(whole, "transformer", whole))
    )
    for caption, features_SD in zip(CAPTIONS, found, strict=True):
        ids = [len(SPECIAL) + WORDS.index(word) for word in caption.split()][:TOKENS] or [1]
        with torch.no_grad():
            said = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states = said.hidden_states[-2] if kind in DECODERS else said.last_hidden_state
        assert features_SD.shape == (len(ids), DIM) and features_SD.dtype == torch.float32
        assert torch.allclose(features_SD, states[0], atol=1e-5)
    assert not any(p.requires_grad for p in own.network.parameters())


def test_a_caption_has_the_same_features_whatever_is_beside_it(gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load(gemma)
    together = own.features(CAPTIONS * 2)
    monkeypatch.setattr(textmodel, "AT_A_TIME", 1)
    for one, alone in zip(together, own.features(CAPTIONS * 2), strict=True):
        assert torch.allclose(one, alone, atol=1e-5)
    assert not torch.allclose(together[1][0], together[3][0], atol=1e-2)  # another caption


def test_settings_that_do_not_fit_are_named(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^text\.dim: 64, but .* has 16 features; set --text\.dim 16$"):
        load(gemma, dim=64)
    save_text(tmp_path, "gpt2", limit=5)
    with pytest.raises(UserError, match=r"^text\.tokens: 6, but .* reads at most 5; set --text\.tokens 5$"):
        load(tmp_path)
    save_text(tmp_path, "gpt2")
    with pytest.raises(UserError, match="reads at most 64"):
        load(tmp_path, tokens=65)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"^text\.model: .* cannot be loaded .*; choose another$"):
        load(tmp_path)


def test_weights_that_are_not_there_are_missed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_text(tmp_path, "bert")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("encoder.layer.1.output.dense.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks encoder\.layer\.1\.output\.dense\.weight"):
        load(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    made = save_text(tmp_path, "bert")
    (tmp_path / "model.safetensors").unlink()
    torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path)


def test_one_of_the_hub_is_pinned(server: Hub, gemma: Path) -> None:
    commit = server.add("bob/gemma", {path.name: path.read_bytes() for path in gemma.iterdir()})
    source = Source.of("text.model", "bob/gemma@main")
    assert (source.name, source.version) == ("bob/gemma", commit)
    found = TextModel.load(source, wanted(gemma, model="bob/gemma"), CPU).features(CAPTIONS)
    assert all(torch.equal(one, other) for one, other in zip(found, load(gemma).features(CAPTIONS), strict=True))
    server.fail("GET", 503, times=999)
    with pytest.raises(UserError, match="the Hub has a fault"):
        Source.of("text.model", "bob/other")


# the features that are kept


def opened(folder: Path, network: str = "net", tokens: int = TOKENS) -> CaptionStore:
    found = CaptionStore(tokens, DIM)
    found.open(folder, network)
    return found


def test_features_are_kept_and_padded(gemma: Path, tmp_path: Path) -> None:
    store, model = opened(tmp_path), load(gemma)
    assert store.missing([*CAPTIONS[1:], "severe"]) == sorted(CAPTIONS)
    store.make(store.missing(CAPTIONS), model, bar=False)
    again = opened(tmp_path)
    assert again.missing(CAPTIONS) == [] and again.missing(["mild"]) == ["mild"]
    plain = dict(zip(CAPTIONS, model.features(CAPTIONS), strict=True))
    for caption in CAPTIONS:
        sample, length = again(caption), len(plain[caption])
        assert torch.allclose(sample["features"][:length], plain[caption], atol=1e-5)
        assert not sample["features"][length:].any() and sample["features"].shape == (TOKENS, DIM)
        assert sample["said"].tolist() == [place < length for place in range(TOKENS)]
        assert torch.equal(sample["silent"], again("")["features"]) and torch.equal(sample["heard"], again("")["said"])
    with pytest.raises(ValueError, match="not computed"):
        again("mild")


def test_only_what_is_missing_or_damaged_is_computed(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retina_diffusion.captionstore.PER_FILE", 2)
    model = load(gemma)
    first = opened(tmp_path)
    first.make(first.missing(CAPTIONS), model, bar=False)
    one, other = sorted(first.folder.iterdir())
    names = kept.names(one, first.mark)
    one.write_bytes(one.read_bytes()[:-1])
    lost = opened(tmp_path).missing(CAPTIONS)
    assert len(lost) == 2
    again = opened(tmp_path)
    again.make(lost, model, bar=False)
    assert kept.names(one, again.mark) == names and opened(tmp_path).missing(CAPTIONS) == []
    data = bytearray(other.read_bytes())
    data[-2] ^= 4
    other.write_bytes(data)
    assert len(opened(tmp_path).missing(CAPTIONS)) == 2
    assert len(opened(tmp_path, network="another").missing(CAPTIONS)) == 4
    assert len(opened(tmp_path, tokens=5).missing(CAPTIONS)) == 4


def test_processes_share_the_captions(tmp_path: Path) -> None:
    shares = [opened(tmp_path).missing(CAPTIONS, slice(rank, None, 3)) for rank in range(3)]
    assert sorted(text for share in shares for text in share) == sorted(CAPTIONS)


def test_new_captions_are_heard_without_being_kept(gemma: Path, tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.make(["", "mild"], load(gemma), keep=False, bar=False)
    assert store.missing(["mild"]) == [] and not store.folder.exists()
    assert store("mild")["said"].sum() == 1


def test_batches_share_the_features_of_no_caption(gemma: Path, tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.make(sorted(CAPTIONS), load(gemma), keep=False, bar=False)
    shown = {"mask": torch.zeros(7, 8, 8, dtype=torch.uint8), "known": torch.ones(7, dtype=torch.bool)}
    asked = condition(Collate(8)([{**shown, **store(caption)} for caption in CAPTIONS[1:]]), ["MA"])
    assert asked.features_BSD.shape == (3, TOKENS, DIM) and asked.silent_SD.shape == (TOKENS, DIM)
    silent = asked.without_text(torch.tensor([True, False, True]))
    none = store("")
    assert torch.equal(silent.features_BSD[0], none["features"]) and torch.equal(silent.said_BS[2], none["said"])
    assert torch.equal(silent.features_BSD[1], asked.features_BSD[1])


# whole runs

TINY = [
    *("--data.size", "32", "--data.sample-size", "40", "--model.dim", "32", "--model.depth", "1", "--model.heads", "2"),
    *(
        "--batch-size",
        "8",
        "--training.steps",
        "4",
        "--training.eval-every",
        "2",
        "--lr",
        "0.05",
        "--text.encoder",
        "hub",
    ),
    *("--scheduler.warmup-steps", "0", "--text.dim", "16", "--text.tokens", "12", "--flow.mask-dropout", "0.5"),
    *("--sampling.steps", "2", "--sampling.text-guidance", "2", "--evaluation.segmenter-steps", "2"),
    *("--evaluation.most-masks", "2", "--evaluation.per-mask", "2", "--optimizer.weight-decay", "0"),
    *("--logging.tracker", "none", "--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false"),
]


@pytest.fixture(autouse=True)
def _without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than everything else here."""
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")


def run(home: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(home / "data"), "--paths.runs", str(home / "runs"), *flags])


@pytest.fixture(scope="module")
def home(gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set and a model that was trained with Gemma's features."""
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
        assert run(made, "prepare", "--sample", *TINY[:4]) == 0
        assert run(made, "train", "--name", "listens", "--text.model", str(gemma), *TINY) == 0
    return made


def drawn(home: Path, out: Path, *flags: str) -> np.ndarray:
    asked = ("--run", "listens", "--count", "1", "--out", str(out), "--logging.progress", "false")
    assert run(home, "predict", *asked, *flags) == 0
    return np.asarray(Image.open(out / "images" / "000000.png"))


def test_captions_change_what_is_drawn(home: Path, gemma: Path, tmp_path: Path) -> None:
    notes = json.loads((home / "runs/retina-diffusion/listens/preprocessing/networks.json").read_text())
    assert notes == {"text.model": Source.of("text.model", str(gemma)).about}
    one = drawn(home, tmp_path / "one", "--caption", "a fundus without retinopathy")
    same = drawn(home, tmp_path / "same", "--caption", "a fundus without retinopathy")
    other = drawn(home, tmp_path / "other", "--caption", "severe proliferative diabetic retinopathy")
    assert (one == same).all() and (one != other).any()


def test_captions_that_fill_all_tokens_are_said(home: Path) -> None:
    config = configuration.stored(Config, home / "runs/retina-diffusion/listens")
    runtime = Runtime.start(config.runtime, config.seed)
    short = config.model_copy(update={"text": config.text.model_copy(update={"tokens": 3})})
    (line,) = train.FlowTask(short, runtime).warnings()
    assert re.fullmatch(r"text.tokens: (\d+) of \1 captions fill all 3; the rest is not read", line)


def test_it_is_evaluated(home: Path) -> None:
    assert run(home, "evaluate", "--run", "listens", "--logging.progress", "false") == 0
    found = json.loads((home / "runs/retina-diffusion/listens/evaluation/test.json").read_text())
    assert 0 <= found["metrics"]["mask_fidelity"]["value"] <= 1


def test_the_text_model_is_asked_once(home: Path, gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later training on the set finds the features; so does a model that draws from its captions."""

    def never(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(precomputed.TextModel, "load", never)
    flags = ("--name", "again", "--text.model", str(gemma), *TINY, "--training.steps", "1")
    assert run(home, "train", *flags) == 0
    path = RunDir(home / "runs/retina-diffusion/listens")
    config = configuration.stored(Config, path.path)
    who = subject.of_run(path, config, "latest", Runtime.start(config.runtime, 0))
    rows = train.Material.load(config).part("test")
    who.hear(row["text"] for row in rows)
    assert who.encode(rows[0]["text"])["features"].shape == (12, DIM)


def test_another_text_model_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_text(tmp_path, "gemma", seed=1)
    asked = ("--run", "listens", "--count", "1", "--text.encoder", "hub", "--text.model", str(tmp_path))
    assert run(home, "predict", *asked, "--out", str(tmp_path / "out")) == 2
    assert "are not those that this model was trained with" in capsys.readouterr().err


def test_a_width_that_is_kept_must_fit_too(home: Path, gemma: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--name", "wide", "--text.model", str(gemma), *TINY, "--text.dim", "64") == 2
    assert capsys.readouterr().err.strip().endswith("set --text.dim 16")


def test_a_plan_asks_no_text_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "plan", "--name", "paper", "--text.model", "nobody/has-this", *TINY) == 0
    assert "nobody/has-this computes the features of" in capsys.readouterr().out
