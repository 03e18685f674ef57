"""The catalogue: its tables against timm's own, the lookup of names, and its errors."""

import json
import subprocess
import sys
from collections import Counter
from importlib import resources

import pytest

import flaim.models
from flaim import registry
from flaim.family import Timm
from flaim.options import options_from
from flaim.weights import CatalogueError, catalogue, list_models, resolve, rows
from flaim.weights.converters.keras import TABLES, entry_of
from tests.oracle import timm
from tools import make_catalogue, make_keras_catalogue

FLAIM, TIMM, KERAS = rows(timm=False, keras=False), rows(flaim=False, keras=False), rows(flaim=False, timm=False)
KERAS_LINES = list(
    map(json.loads, resources.files("flaim.weights.catalogue").joinpath("keras.jsonl").read_text().splitlines())
)


def test_flaims_pairs_are_all_there():
    assert len(FLAIM) == len({(row.model, row.params) for row in FLAIM}) == 416
    assert len({row.model for row in FLAIM}) == 213
    assert all(row.params.endswith(f"_{row.input_size[0]}") for row in FLAIM)
    assert all(row.license and row.flaim_repo for row in FLAIM)
    # Without timm's name, what is known of the origin stands in for it.
    assert Counter(row.family for row in FLAIM if row.timm_id is None) == dict(swin=7, hornet=4, van=4, vit=3, resnet=1)
    assert all(row.source and row.note for row in FLAIM if row.timm_id is None)


def test_rows_agree_with_timm():
    def facts(row):
        size = (row.in_channels, *row.input_size), row.preprocessing.test_input_size
        return (row.location.repo, *size, row.preprocessing.mean, row.preprocessing.std, row.n_classes, row.license), (
            row.preprocessing.interpolation,
            row.preprocessing.crop_mode,
            row.preprocessing.crop_pct,
            row.preprocessing.test_crop_pct,
        )

    def timms(cfg):
        size = cfg.input_size, cfg.test_input_size and cfg.test_input_size[1:]
        return (cfg.hf_hub_id, *size, cfg.mean, cfg.std, cfg.num_classes or -1, cfg.license), (
            cfg.interpolation,
            cfg.crop_mode,
            cfg.crop_pct,
            cfg.test_crop_pct,
        )

    named = [row for row in rows() if row.timm_id]
    assert len(named) == 397 + len(TIMM)
    differing = [row for row in named if facts(row) != timms(timm.models.get_pretrained_cfg(row.timm_id))]
    assert not differing


def test_timms_table_is_complete():
    """Every checkpoint of the modules that the families cover, each architecture's default tag first."""
    modules = [module for name in registry.families() for module in (registry.family(name).timm or Timm(())).modules]
    names = [name for m in modules for name in timm.list_models(module=m, pretrained=True, include_tags=True)]
    names = [name for name in names if timm.models.get_pretrained_cfg(name).hf_hub_id]
    partly = {
        *timm.list_models(["mobilenetv4*", "fbnetv3*", "hardcorenas*"], module="mobilenetv3"),
        "ens_adv_inception_resnet_v2",
    }
    names = [name for name in names if name.partition(".")[0] not in partly]
    assert Counter(row.timm_id for row in TIMM) == Counter(names)
    for architecture in {row.model for row in TIMM}:
        default = timm.models.get_pretrained_cfg(architecture).tag
        assert next(row.params for row in TIMM if row.model == architecture) == default


def test_tables_load_quickly():
    """In a process of its own, where annotations are not checked: 22 ms, three times what it takes to parse their JSON.
    The parsing is the measure, in turns with the loading, since others may have the cores."""
    code = """
import json
import statistics
import time

from flaim.weights.catalogue import _tables

def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start

def load():
    _tables.table.cache_clear()
    assert len(_tables.rows()) == len(lines)

lines = [line for file in _tables.FOLDER.rglob("*.jsonl") for line in file.read_text().splitlines()]
times = [(seconds(load), seconds(lambda: [json.loads(line) for line in lines])) for _ in range(7)]
print(statistics.median(loading / parsing for loading, parsing in times))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 5


def test_keras_table_is_what_keras_publishes():
    assert [json.loads(json.dumps(line)) for line in make_keras_catalogue.rows()] == KERAS_LINES
    # Keras has hashes for all but two families.
    unhashed = {row.architecture for row in KERAS if row.location.digest is None}
    assert all(name.startswith(("tf_mobilenetv1_", "mobilenetv2_")) for name in unhashed)
    named = {(table.family, entry.architecture) for table in TABLES for entry in table.models.values()}
    assert {(row.family, row.architecture) for row in KERAS} == named
    for row in KERAS:
        entry = entry_of(row.architecture)
        assert options_from(row.overrides, row.family) == options_from(entry.overrides, row.family)
        assert row.converter == "keras" and row.params.endswith(f"_{row.input_size[0]}")


@pytest.mark.parametrize(
    ("name", "pretrained", "params"),
    [
        ("resnet50.keras_in1k", True, "keras_in1k_224"),
        ("resnet50", "keras_in1k", "keras_in1k_224"),
        ("resnet50", "keras_in1k_224", "keras_in1k_224"),
        ("resnetrs152.keras_in1k", True, "keras_in1k_256"),
        ("resnetrs152.keras_in1k_192", True, "keras_in1k_192"),
        ("convnext_base.keras_in22k_ft_in1k", True, "keras_in22k_ft_in1k_224"),
        ("mobilenetv2_130", True, "keras_in1k_224"),
        ("tf_mobilenetv1_100", 160, "keras_in1k_160"),
    ],
)
def test_resolve_keras(name, pretrained, params):
    row = resolve(name, pretrained)
    assert (row.architecture, row.params) == (name.partition(".")[0], params)
    assert row.location.url.startswith("https://") and row.location.repo is None


def test_van_is_normalised_as_it_was_trained():
    van = [row for row in FLAIM if row.family == "van"]
    assert len(van) == 4
    assert all(row.preprocessing.mean == row.preprocessing.std == (0.5, 0.5, 0.5) for row in van)


def test_list_models():
    pairs = list_models()
    assert ("resnet50", "in1k_224") in pairs
    assert set(pairs) == {(row.model, row.params) for row in FLAIM + KERAS if row.family in flaim.models.families()}
    assert {model for model, _ in list_models("resnext")} > {"resnext50_32x4d", "seresnext26t_32x4d"}
    assert list_models("^resnet50$", "^in1k") == [("resnet50", "in1k_224")]
    assert list_models("^resnet50$", "keras") == [("resnet50", "keras_in1k_224")]
    assert list_models("vit", 384)
    assert all(params.endswith("_384") for _, params in list_models("", 384))
    assert not list_models("no such model")
    assert ("resnet50", "a1_in1k") in list_models("^resnet50$", timm=True)
    with pytest.raises(ValueError, match=r"'resnet\(' is not a regular expression"):
        list_models("resnet(")


@pytest.mark.parametrize(
    ("name", "pretrained", "timm_id"),
    [
        ("resnet18", True, "resnet18.tv_in1k"),
        ("resnet18", False, "resnet18.tv_in1k"),
        ("resnet18", "in1k_224", "resnet18.tv_in1k"),
        ("resnet18", "a1_in1k", "resnet18.a1_in1k"),
        ("resnet18.a1_in1k", True, "resnet18.a1_in1k"),
        ("vit_base_patch16_224", True, "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        ("vit_base_patch16_224", "dino", "vit_base_patch16_224.dino"),
        ("vit_base_patch16", True, "vit_base_patch16_224.augreg_in1k"),
        ("vit_base_patch16", 384, "vit_base_patch16_384.augreg_in1k"),
        ("vit_large_patch32", True, "vit_large_patch32_384.orig_in21k_ft_in1k"),
        ("convnext_tiny", True, "convnext_tiny.fb_in1k"),
        ("convnext_tiny", 384, "convnext_tiny.in12k_ft_in1k_384"),
        ("maxvit_small", "in1k_224", "maxvit_small_tf_224.in1k"),
        ("efficientnetv2_small", 300, "tf_efficientnetv2_s.in1k"),
        ("swin_tiny_window7", True, "swin_tiny_patch4_window7_224.ms_in1k"),
    ],
)
def test_resolve(name, pretrained, timm_id):
    row = resolve(name, pretrained)
    assert row.timm_id == timm_id
    assert row.architecture == timm_id.partition(".")[0]
    assert row.location.repo == f"timm/{timm_id}"


def test_every_implemented_row_makes_a_model():
    for row in rows(keras=False):
        if catalogue.is_implemented(row):
            options = options_from(row.overrides, row.family)
            model = flaim.models.create(row.architecture, input_size=row.input_size, **options)
            if options:
                assert model.spec()


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("resnet5o", True, "no model called 'resnet5o'; did you mean .*resnet50"),
        ("qqq", True, "no model called 'qqq'; list_models"),
        ("resnet5o.a1_in1k", True, r"no model called 'resnet5o\.a1_in1k'; did you mean .*resnet50"),
        ("resnet18", "in22k_224", "resnet18 has no parameters called 'in22k_224'; it has in1k_224, ssl_ft_in1k_224"),
        ("resnet50.keras_in1k_160", True, r"resnet50 has no checkpoint 'keras_in1k_160'; it has .*keras_in1k_224"),
        ("resnet18", 225, "resnet18 has no parameters at resolution 225; it has in1k_224"),
        ("resnet18.b7_in1k", True, "resnet18 has no checkpoint 'b7_in1k'; it has .*a1_in1k"),
        ("resnet18.a1_in1k", "in1k_224", r"resnet18\.a1_in1k names its parameters already"),
        ("ecaresnet50d_pruned", True, "ecaresnet50d_pruned, of the family resnet, is not yet implemented"),
        ("resnet200", True, "no published parameters for resnet200: pass pretrained=False or the path"),
    ],
)
def test_errors(name, pretrained, message):
    with pytest.raises(CatalogueError, match=message):
        resolve(name, pretrained)


def test_an_architecture_of_keras_alone_is_the_plain_one_without_its_weights():
    row = resolve("legacy_xception", False)
    assert (row.architecture, row.converter, row.location.url, dict(row.overrides)) == (
        "legacy_xception",
        "timm",
        None,
        {},
    )


def test_an_architecture_without_checkpoints():
    row = resolve("resnet200", False)
    assert (row.architecture, row.family, row.location.repo) == ("resnet200", "resnet", None)


def test_non_commercial_licenses_are_marked():
    marked = {row.license for row in rows() if row.non_commercial}
    assert marked == {"cc-by-nc-4.0", "seer-license", "fair-noncommercial-research-license", "apple-amlr"}


def test_tables_are_what_their_tool_writes():
    written = {path.name: path.read_text(encoding="utf-8") for path in catalogue.TIMM.glob("*.jsonl")}
    assert make_catalogue.tables() == written


def test_accuracies():
    """The figures of timm's own table, and where a checkpoint has two, the one at its own size first."""
    first, second = catalogue.accuracies(resolve("resnet50.a1_in1k"))
    assert (first.size, first.top1, second.size, second.top1) == (224, 80.382, 288, 81.24)
    assert catalogue.accuracies(resolve("resnet50.keras_in1k")) == []
    assert sum(bool(catalogue.accuracies(row)) for row in TIMM) > 0.8 * sum(row.n_classes == 1000 for row in TIMM)


def test_details():
    for found in list_models("^(resnet50|vit_base_patch16)$", details=True):
        assert (found.model, found.params) in list_models("^(resnet50|vit_base_patch16)$")
        assert found.license and found.parameters > 25e6 and found.gmacs > 4
    by_name = {(found.model, found.params): found for found in list_models("^resnet50$", details=True)}
    found = by_name["resnet50", "in1k_224"]
    assert (found.top1, found.top1_size, found.parameters) == (80.382, 224, 25_557_032)
    assert found.gmacs == pytest.approx(4.09, rel=1e-2) and found.info.timm_id == "resnet50.a1_in1k"
