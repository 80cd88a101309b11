"""Loading from a directory, as saved here and as published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toto.model.toto import Toto as ReferenceToto
from toto_cases import CONFIG, make_reference, masks, random_series

from toto_model import Toto, TotoConfig


def save(folder: Path, state: dict[str, torch.Tensor], config: dict) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def published_config() -> dict:
    """The configuration as the hub's config.json has it: xFormers on, keys unknown to the class."""
    return CONFIG.to_dict() | {"use_memory_efficient_attention": True, "pre_xformers_checkpoint": False}


def assert_same_output(model: Toto, reference: ReferenceToto) -> None:
    series = random_series()
    with torch.no_grad():
        found = model(series, **masks(series, "mixed")).distribution.mean
        expected = reference.model(series, **masks(series, "mixed")).distribution.mean
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_published_directory(tmp_path: Path):
    reference = make_reference()
    fused = ReferenceToto._map_state_dict_keys(reference.state_dict(), use_fused_swiglu=True)
    fused["model.transformer.rotary_emb.freqs"] = torch.zeros(4)
    save(tmp_path, fused, published_config())
    model = Toto.from_pretrained(tmp_path, kv_cache="baseline")
    assert not model.training and model.model.kv_cache == "baseline"
    assert model.device == torch.device("cpu")
    assert_same_output(model, reference)


def test_reference_loads_what_we_save(tmp_path: Path):
    torch.manual_seed(0)
    model = Toto(CONFIG).eval()
    save(tmp_path, model.state_dict(), model.config.to_dict())
    assert_same_output(model, ReferenceToto.load_from_checkpoint(str(tmp_path)).eval())


def test_overrides(tmp_path: Path):
    save(tmp_path, Toto(CONFIG).state_dict(), CONFIG.to_dict())
    assert Toto.from_pretrained(str(tmp_path), dropout=0.0).config.dropout == 0.0
    with pytest.raises(TypeError, match="droupout"):
        Toto.from_pretrained(tmp_path, droupout=0.0)
    with pytest.raises(RuntimeError):
        Toto.from_pretrained(tmp_path, mlp_hidden_dim=32)


def test_variate_labels_are_loaded(tmp_path: Path):
    labeled = Toto(CONFIG)
    labeled.model.enable_variate_labels()
    model = Toto.from_pretrained(save(tmp_path, labeled.state_dict(), CONFIG.to_dict()))
    name = "model.target_variate_label"
    assert torch.equal(model.state_dict()[name], labeled.state_dict()[name])


def test_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reference = make_reference()
    save(tmp_path, reference.state_dict(), published_config())
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert_same_output(Toto.from_pretrained("Datadog/Toto-Open-Base-1.0"), reference)
    assert asked == [("Datadog/Toto-Open-Base-1.0", name) for name in ("config.json", "model.safetensors")]


def test_missing_files(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        Toto.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        Toto.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Toto.from_pretrained(tmp_path / "nowhere")


def test_missing_weights(tmp_path: Path):
    state = Toto(CONFIG).state_dict()
    del state["model.unembed.bias"]
    save(tmp_path, state, TotoConfig.tiny().to_dict())
    with pytest.raises(RuntimeError, match="model.unembed.bias"):
        Toto.from_pretrained(tmp_path)
