"""Operators are found by entry point, ordered, switched off, and refused with a useful message."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.catalog import Catalog
from models.device import Device
from operators.operator import OperatorError
from operators.registry import BUILT_IN, available_operators, build_operators

CPU = Device(torch.device("cpu"), torch.float32)
CATALOG = Catalog([])
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "brightness-operator"
ALL_OFF = {name: {"enabled": False} for name in BUILT_IN}

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one operator on the path, as an installer would."""

    def put(distribution: str, entry: str, code: str) -> None:
        site = tmp_path / distribution
        site.mkdir()
        information = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[imagewire.operators]\n{entry}\n")
        module = entry.partition("=")[2].partition(":")[0].strip()
        (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return put


def install_example(install: Install) -> None:
    install(
        "imagewire-brightness",
        "brightness = imagewire_brightness:BrightnessOperator",
        (EXAMPLE / "imagewire_brightness.py").read_text(),
    )


def test_the_built_in_operators_are_available_in_their_order() -> None:
    assert tuple(available_operators())[: len(BUILT_IN)] == BUILT_IN


def test_a_third_partys_operator_is_found_and_gets_its_options(install: Install) -> None:
    install_example(install)
    operators = build_operators(
        {**ALL_OFF, "brightness": {"side": 64, "enabled": True}}, CPU, CATALOG
    )
    assert [operator.name for operator in operators] == ["brightness"]
    assert operators[0].options == {"side": 64}


def test_a_third_partys_operator_runs_only_when_it_is_listed(install: Install) -> None:
    install_example(install)
    assert "brightness" in available_operators()
    assert build_operators(ALL_OFF, CPU, CATALOG) == []


def test_the_documented_package_declares_the_entry_point_that_the_tests_use() -> None:
    text = (EXAMPLE / "pyproject.toml").read_text()
    assert 'brightness = "imagewire_brightness:BrightnessOperator"' in text


def test_an_unknown_operator_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(OperatorError, match="'embeding'; did you mean 'embedding'"):
        build_operators({**ALL_OFF, "embeding": {}}, CPU, CATALOG)


def test_an_operator_that_cannot_be_imported_names_its_distribution(install: Install) -> None:
    install("pack-broken", "broken = pack_broken:Operator", "import a_module_that_is_not_there\n")
    with pytest.raises(OperatorError, match=r"pack-broken 1\.0.*a_module_that_is_not_there"):
        build_operators({**ALL_OFF, "broken": {}}, CPU, CATALOG)


def test_an_operator_that_is_switched_off_is_not_even_imported(install: Install) -> None:
    install("pack-off", "off = pack_off:Operator", "raise RuntimeError('imported')\n")
    assert build_operators({**ALL_OFF, "off": {"enabled": False}}, CPU, CATALOG) == []


def test_two_distributions_may_not_offer_different_operators_under_one_name(
    install: Install,
) -> None:
    install("pack-one", "objects = pack_one:Operator", "")
    with pytest.raises(OperatorError, match=r"two operators are called 'objects'.*pack-one 1\.0"):
        available_operators()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Thing: pass", "no subclass"),
        (
            "from operators.operator import Operator\n"
            "class Thing(Operator):\n    name = 'other'\n    def process(self, frames): ...\n",
            "calls itself 'other'",
        ),
        (
            "from operators.operator import Operator\n"
            "class Thing(Operator):\n    name = 'thing'\n    def process(self, frames): ...\n"
            "    def __init__(self, options, device, catalog):\n        options['needed']\n",
            "does not accept its options",
        ),
    ],
)
def test_something_that_is_no_operator_is_refused(
    install: Install, code: str, message: str
) -> None:
    install("pack-thing", "thing = pack_thing:Thing", code)
    with pytest.raises(OperatorError, match=message):
        build_operators({**ALL_OFF, "thing": {}}, CPU, CATALOG)


def test_enabled_must_be_true_or_false() -> None:
    with pytest.raises(OperatorError, match=r"operators\.text\.enabled"):
        build_operators({"text": {"enabled": "no"}}, CPU, CATALOG)
