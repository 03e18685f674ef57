"""Options as JSON: the names that files of users already have, and what is refused."""

import functools
import json
from pathlib import Path

import pytest

import flaim_core as core
from flaim import models, registry
from flaim.options import choices, from_json, options_from, overrides_of, to_json

# The names of functions in configurations that flaim 0.1 wrote, by family.
SAVED = json.loads((Path(__file__).parent / "data" / "saved_choices.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", registry.families())
def test_names_in_old_files_are_still_known(family):
    known = choices(family)
    assert not [name for name in SAVED.get(family, []) if name not in known]


@pytest.mark.parametrize("family", registry.families())
def test_what_is_written_is_the_first_name(family):
    written = {}
    for name, function in registry.family(family).choices.items():
        written.setdefault(function, name)
    for function, name in written.items():
        if not isinstance(function, type):
            assert to_json(function, family) == {"function": name}


def test_bound_arguments_come_back():
    norm = functools.partial(core.layer_norm, eps=1e-12)
    model = models.create("test_vit", norm=norm, pool=choices("vit")["average_pool"])
    said = json.loads(json.dumps(overrides_of(model)))
    assert said["norm"] == {"function": "layer_norm", "eps": 1e-12} and said["pool"] == {"function": "average_pool"}
    assert models.create("test_vit", **options_from(said, "vit")) == model


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"function": "__import__"}, r"vit has no function .*__import__.* for its option 'act'"),
        ({"function": "partial"}, "has no function"),
        ({"function": "Family"}, "has no function"),
        ({}, "has no function"),
        ({"function": ["gelu"]}, "has no function"),
    ],
)
def test_other_names_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        from_json("act", value, "vit")
    with pytest.raises(ValueError, match="cannot make"):
        from_json("stages", [{"function": "Stack", "blok": 1}], "efficientnet")
