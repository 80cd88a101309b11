"""The top-level module, and loading of published weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toto_model.backbone import TotoBackbone, TotoOutput
from toto_model.config import TotoConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_UNFUSED_NAMES = {"mlp.0.w12.": "mlp.0.", "mlp.0.w3.": "mlp.2."}


def unfused_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a fused (xFormers) SwiGLU to those of the separate layers used here.

    Names that are already unfused are kept, and rotary tables, which older checkpoints carry, are left out.
    """
    renamed = {}
    for name, tensor in state.items():
        if ".rotary_emb." in name:
            continue
        for fused, unfused in _UNFUSED_NAMES.items():
            name = name.replace(fused, unfused)
        renamed[name] = tensor
    return renamed


class Toto(nn.Module):
    """A Toto model whose state dict has the names and shapes of ``toto.model.toto.Toto``.

    Args:
        config: hyper-parameters.
        kv_cache: "baseline", "compile_friendly", "upstream" or "fixed_size"; see ``toto_model.cache``.

    Raises:
        ValueError: unknown ``kv_cache``.
    """

    def __init__(self, config: TotoConfig, kv_cache: str = "upstream") -> None:
        super().__init__()
        self.config = config
        self.model = TotoBackbone(config, kv_cache)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.model.device

    def forward(self, *args: Any, **kwargs: Any) -> TotoOutput:
        """As ``TotoBackbone.forward``."""
        return self.model(*args, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str | os.PathLike[str],
        map_location: str | torch.device = "cpu",
        kv_cache: str = "upstream",
        **overrides: Any,
    ) -> Toto:
        """Load a model, in evaluation mode, from a directory or from the Hugging Face hub.

        Args:
            path_or_hub_name: a directory with ``config.json`` and ``model.safetensors``, or a name such as
                "Datadog/Toto-Open-Base-1.0" (this needs ``huggingface_hub``).
            map_location: device of the loaded weights.
            kv_cache: see the class.
            overrides: fields of ``TotoConfig`` that replace those of ``config.json``.

        Raises:
            FileNotFoundError: the directory, or one of its two files, is missing.
            ValueError: the configuration is incomplete or inconsistent.
            TypeError: an override is no field of ``TotoConfig``.
            RuntimeError: the weights do not fit the configuration.
        """
        unknown = sorted(set(overrides) - set(TotoConfig.__dataclass_fields__))
        if unknown:
            raise TypeError(f"no such field of TotoConfig: {', '.join(unknown)}")
        config_file, weights_file = _locate(path_or_hub_name)
        config = TotoConfig.from_dict(json.loads(config_file.read_text()) | overrides)
        state = unfused_state_dict(load_file(weights_file, device=str(map_location)))

        model = cls(config, kv_cache)
        if "model.target_variate_label" in state:
            model.model.enable_variate_labels()
        missing = model.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise RuntimeError(f"{weights_file} lacks {', '.join(missing)}")
        return model.to(map_location).eval()


def _locate(path_or_hub_name: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Configuration and weights files of a local directory or hub name."""
    path = Path(path_or_hub_name).expanduser()
    if path.is_dir():
        files = path / CONFIG_FILE, path / WEIGHTS_FILE
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"no such file: {file}")
        return files

    name = os.fspath(path_or_hub_name)
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name} is neither a directory nor a hub name (owner/model)")
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, CONFIG_FILE)), Path(hf_hub_download(name, WEIGHTS_FILE))
