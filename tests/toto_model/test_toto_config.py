"""Configurations and their errors."""

from __future__ import annotations

import dataclasses

import pytest

from toto_model import TotoConfig, TotoForecaster
from toto_model.toto import Toto

TINY = TotoConfig.tiny()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "embed_dim"),
        ({"num_layers": 0}, "num_layers"),
        ({"spacewise_every_n_layers": 3}, "spacewise_every_n_layers"),
        ({"spacewise_every_n_layers": 0}, "spacewise_every_n_layers"),
        ({"scaler_cls": "MinMax"}, "MinMax.*CausalPatchStdMeanScaler"),
        ({"output_distribution_classes": ["Gaussian"]}, "Gaussian.*StudentTOutput"),
        ({"output_distribution_classes": []}, "empty"),
    ],
)
def test_rejected_values(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_from_dict_ignores_unknown_and_names_missing_keys():
    values = TINY.to_dict() | {"pre_xformers_checkpoint": True, "architectures": ["Toto"]}
    assert TotoConfig.from_dict(values) == TINY
    del values["patch_size"], values["dropout"]
    with pytest.raises(ValueError, match="lacks patch_size, dropout"):
        TotoConfig.from_dict(values)


@pytest.mark.parametrize(
    ("every", "first", "expected"),
    [(4, False, [0, 0, 0, 1]), (4, True, [1, 0, 0, 0]), (2, False, [0, 1, 0, 1]), (-1, True, [0, 0, 0, 0])],
)
def test_layer_kinds(every: int, first: bool, expected: list[int]):
    config = dataclasses.replace(TINY, spacewise_every_n_layers=every, spacewise_first=first)
    assert config.layer_is_spacewise == [bool(kind) for kind in expected]


def test_base():
    base = TotoConfig.base()
    assert (base.patch_size, base.embed_dim, base.num_layers, base.head_dim) == (64, 768, 12, 64)
    assert base.layer_is_spacewise == [False] * 11 + [True]


def test_forecaster_needs_adjacent_patches():
    with pytest.raises(ValueError, match="stride"):
        TotoForecaster(Toto(dataclasses.replace(TINY, stride=4)).model)
