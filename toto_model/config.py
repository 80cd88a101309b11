"""Model configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toto_model.distribution import OUTPUT_DISTRIBUTIONS
from toto_model.scaler import SCALERS

CAUSAL_PATCH_SCALER = "<class 'model.scaler.CausalPatchStdMeanScaler'>"
STUDENT_T_MIXTURE = "<class 'model.distribution.MixtureOfStudentTsOutput'>"


@dataclass(frozen=True)
class TotoConfig:
    """Hyper-parameters of a Toto model, with the field names of the published ``config.json``.

    ``scaler_cls`` and ``output_distribution_classes`` take the strings found in published configurations, such as
    ``"<class 'model.scaler.CausalPatchStdMeanScaler'>"``; only the first output distribution is used.
    ``spacewise_every_n_layers=-1`` means that every layer is time-wise.  ``use_memory_efficient_attention`` is
    accepted and ignored: there is one attention here.

    Raises:
        ValueError: where the values do not fit together, or name an unknown scaler or distribution.
    """

    patch_size: int
    stride: int
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_hidden_dim: int
    dropout: float
    spacewise_every_n_layers: int
    scaler_cls: str
    output_distribution_classes: list[str]
    spacewise_first: bool = True
    output_distribution_kwargs: dict[str, Any] | None = field(default_factory=dict)
    use_memory_efficient_attention: bool = False
    stabilize_with_global: bool = True
    scale_factor_exponent: float = 10.0

    def __post_init__(self) -> None:
        for name in ("patch_size", "stride", "embed_dim", "num_layers", "num_heads", "mlp_hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.embed_dim % (2 * self.num_heads):
            raise ValueError(
                f"embed_dim ({self.embed_dim}) must give each of the {self.num_heads} heads an even number of channels"
            )
        every = self.spacewise_every_n_layers
        if every != -1 and (every < 1 or self.num_layers % every):
            raise ValueError(
                f"spacewise_every_n_layers must be -1 or divide num_layers ({self.num_layers}), got {every}"
            )
        if self.scaler_cls not in SCALERS:
            raise ValueError(f"unknown scaler_cls {self.scaler_cls!r}, expected one of {sorted(SCALERS)}")
        if not self.output_distribution_classes:
            raise ValueError("output_distribution_classes is empty")
        for name in self.output_distribution_classes:
            if name not in OUTPUT_DISTRIBUTIONS:
                raise ValueError(
                    f"unknown output distribution {name!r}, expected one of {sorted(OUTPUT_DISTRIBUTIONS)}"
                )

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.embed_dim // self.num_heads

    @property
    def layer_is_spacewise(self) -> list[bool]:
        """For each layer, whether it attends over variates (True) or over time (False)."""
        every = self.spacewise_every_n_layers
        if every == -1:
            return [False] * self.num_layers
        spacewise_slot = 0 if self.spacewise_first else every - 1
        return [layer % every == spacewise_slot for layer in range(self.num_layers)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TotoConfig:
        """Build a configuration from a parsed ``config.json``, ignoring keys that are no field of this class.

        Such keys, like ``pre_xformers_checkpoint``, describe how weights were saved; loading copes with all of them.

        Raises:
            ValueError: a required field is missing, or a value is rejected (see the class).
        """
        fields = dataclasses.fields(cls)
        required = [
            f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in values]
        if missing:
            raise ValueError(f"the configuration lacks {', '.join(missing)}")
        return cls(**{f.name: values[f.name] for f in fields if f.name in values})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a plain dict, ready for ``json.dump``."""
        return dataclasses.asdict(self)

    @classmethod
    def base(cls) -> TotoConfig:
        """The public base model: 12 layers of width 768, the last one space-wise, patches of 64 steps."""
        return cls(
            patch_size=64,
            stride=64,
            embed_dim=768,
            num_layers=12,
            num_heads=12,
            mlp_hidden_dim=3072,
            dropout=0.1,
            spacewise_every_n_layers=12,
            scaler_cls=CAUSAL_PATCH_SCALER,
            output_distribution_classes=[STUDENT_T_MIXTURE],
            spacewise_first=False,
            output_distribution_kwargs={"k_components": 24},
        )

    @classmethod
    def tiny(cls) -> TotoConfig:
        """A model for tests and demonstrations: 4 layers of width 32, the last one space-wise, patches of 8 steps."""
        return dataclasses.replace(
            cls.base(),
            patch_size=8,
            stride=8,
            embed_dim=32,
            num_layers=4,
            num_heads=4,
            mlp_hidden_dim=64,
            spacewise_every_n_layers=4,
            output_distribution_kwargs={"k_components": 3},
        )
