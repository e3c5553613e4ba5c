"""A plan is data: hashes that repeat anywhere, nested selection that is counted, variants that are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from jobs.model_defaults import with_model_defaults
from xsite.errors import FoldError, FormatError, RecipeError
from xsite.evaluation.folds import leave_one_site_out
from xsite.evaluation.plan import FINAL, Plan, folder_name, make_plan, nested_runs
from xsite.evaluation.selection import choose, deployable, nested_choice, selection_record
from xsite.experiment import Experiment, parse_experiment
from xsite.recording import RecordingKey

VARIANTS = {"slow": {"optim.lr": 1e-4}, "other": {"model.name": "biot", "data.channels": "native"}}


def manifest(n_sites: int = 4, n_subjects: int = 3) -> pd.DataFrame:
    rows = [
        {
            "site": f"site{'ABCDEFGH'[s]}", "subject": f"{n:02d}", "session": "", "task": "rest", "run": "",
            "sha256": f"hash-{s}-{n}", "ch_names": json.dumps(["Cz", "Pz", "O1"]), "parcels": json.dumps(["p0", "p1"]),
            "parcellation_sha256": "atlas", "n_valid": 100, "t_r": 2.0,
        }
        for s in range(n_sites)
        for n in range(n_subjects)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def plan_of(table: pd.DataFrame, experiment: Experiment, held_out: Sequence[str] = ()) -> Plan:
    folds = leave_one_site_out(table, val_fraction=0.25, seed=experiment.seed, held_out=held_out)
    groups = leave_one_site_out(table, val_fraction=0.25, seed=experiment.seed)
    return make_plan(experiment, table, folds, groups)


def test_runs_are_folds_by_seeds_by_variants_and_one_final() -> None:
    experiment = parse_experiment({"seeds": [3, 5], "variants": VARIANTS, "controls": ["slow"]}, "test")
    plan = plan_of(manifest(), experiment)
    assert plan.counts() == {"fold": 4 * 2 * 2, "control": 4, "final": 1}
    labels = [run.label for run in plan.runs]
    assert len(set(labels)) == len(labels) == len({run.hash for run in plan.runs})
    assert {"siteB/slow", "siteB/slow-seed5", "siteB/other", "siteB/slow-control", FINAL} <= set(labels)
    assert [run.variant for run in plan.of("final")] == ["slow"]
    chosen = parse_experiment({"variants": VARIANTS, "deploy": "other"}, "test")
    assert [run.variant for run in plan_of(manifest(), chosen).of("final")] == ["other"]


def test_the_same_manifest_and_recipe_give_the_same_hashes_in_any_order() -> None:
    experiment = parse_experiment({"variants": VARIANTS, "seeds": [0, 1]}, "test")
    first = plan_of(manifest(), experiment)
    table = manifest().sample(frac=1, random_state=1).reset_index(drop=True)
    again = plan_of(table, parse_experiment(experiment.model_dump(mode="json"), "submitted"))
    assert again.hash == first.hash
    assert again.runs == first.runs
    assert len(first.hash) == 12
    assert all(len(run.hash) == 16 for run in first.runs)


def test_another_process_with_another_hash_seed_names_the_runs_alike() -> None:
    code = "import test_plan as t; print(t.plan_of(t.manifest(), t.parse_experiment({'seeds': [0, 1]}, 'test')).hash)"
    env = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == plan_of(manifest(), parse_experiment({"seeds": [0, 1]}, "test")).hash


def test_only_what_decides_the_weights_moves_a_hash() -> None:
    base = plan_of(manifest(), Experiment())
    more = plan_of(manifest(), Experiment(name="other", surrogates=7, baselines=("zero",), seeds=(0,)))
    assert hashes(more) == hashes(base)
    assert not set(hashes(plan_of(manifest(), Experiment(seed=1))).values()) & set(hashes(base).values())
    table = manifest()
    table.loc[table["site"] == "siteB", "sha256"] += "-changed"
    changed = hashes(plan_of(table, Experiment()))
    same = {label for label, digest in changed.items() if hashes(base)[label] == digest}
    assert same == {"siteB/neurobolt"}  # nothing of the held-out recordings themselves
    table = manifest()
    table.loc[table["site"] == "siteB", "ch_names"] = json.dumps(["Cz", "Pz"])
    assert not set(hashes(plan_of(table, Experiment())).values()) & set(hashes(base).values())


def hashes(plan: Plan) -> dict[str, str]:
    return {run.label: run.hash for run in plan.runs}


def test_a_variant_or_a_seed_more_leaves_the_other_runs_alone() -> None:
    base = hashes(plan_of(manifest(), parse_experiment({"variants": {"neurobolt": {}}}, "test")))
    assert base == hashes(plan_of(manifest(), Experiment()))
    wider = parse_experiment({"variants": {"neurobolt": {}, **VARIANTS}, "seeds": [0, 1, 2]}, "test")
    both = hashes(plan_of(manifest(), wider))
    assert both.items() >= base.items()
    assert len(both) == 4 * 3 * 3 + 1


@pytest.mark.parametrize("n_sites", range(3, 9))
def test_nested_selection_costs_s_plus_s_s_minus_1_over_2(n_sites: int) -> None:
    experiment = Experiment(select_on="leave-one-site-out-val")
    plan = plan_of(manifest(n_sites), experiment)
    assert len(plan.of("inner", "fold")) == n_sites + n_sites * (n_sites - 1) // 2 == nested_runs(n_sites)
    for run in plan.of("inner"):
        sides = plan.sides[run.fold]
        watched = {key.site for _, keys in sides.watch for key in keys}
        assert len(watched) == 2
        assert not watched & {key.site for key in sides.keys}
        assert len({key.site for key in sides.train}) == n_sites - 2
    for run in plan.of("fold"):
        assert run.fold not in {key.site for key in plan.sides[run.fold].keys}


def test_nested_selection_counts_configurations_and_partial_studies() -> None:
    both = parse_experiment({"select_on": "leave-one-site-out-val", "variants": VARIANTS, "seeds": [0, 1]}, "test")
    assert len(plan_of(manifest(4), both).of("inner", "fold")) == 4 * nested_runs(4) == nested_runs(4, 4)
    one = Experiment(select_on="leave-one-site-out-val")
    assert plan_of(manifest(4), one, held_out=("siteB",)).counts() == {"inner": 3, "fold": 1, "final": 1}
    with pytest.raises(FoldError, match="three held-out groups"):
        plan_of(manifest(2), one)


def test_nested_choice_never_reads_the_error_at_the_fold_s_own_site() -> None:
    plan = plan_of(manifest(3), Experiment(select_on="leave-one-site-out-val"))
    histories: dict[str, Any] = {}
    for run in plan.of("inner"):
        a, b = run.fold.split("+")
        # at siteA every epoch is worse than the one before; elsewhere the second is best
        curves = {site: [1.0, 2.0, 3.0] if site == "siteA" else [0.9, 0.5, 0.7] for site in (a, b)}
        histories[run.label] = [{f"val_error/{site}": curves[site][e] for site in (a, b)} for e in range(3)]
    own = nested_choice("siteA", "neurobolt", plan, histories)
    assert (own.n_epochs, own.error) == (2, 0.5)  # siteB and siteC decide, siteA has no say
    other = nested_choice("siteB", "neurobolt", plan, histories)
    assert other.n_epochs == 1 + [0.95, 1.25, 1.85].index(min(0.95, 1.25, 1.85))
    for run in plan.of("inner"):
        for row in histories[run.label]:
            row |= {name: 99.0 for name in row if name == "val_error/siteA"}
    assert nested_choice("siteA", "neurobolt", plan, histories) == own


def test_the_best_variant_is_chosen_per_fold_and_an_oracle_is_not_deployable() -> None:
    plan = plan_of(manifest(3), parse_experiment({"select_on": "leave-one-site-out-val", "variants": VARIANTS}, "test"))
    histories = {
        run.label: [{f"val_error/{site}": 0.4 if run.variant == "other" else 0.6 for site in run.fold.split("+")}]
        for run in plan.of("inner")
    }
    choices = [nested_choice("siteA", variant, plan, histories) for variant in VARIANTS]
    assert choose(choices)["siteA"].variant == "other"
    assert deployable("leave-one-site-out-val")
    record = selection_record("oracle", choices, [0])
    assert record["deployable"] is False
    assert "NOT DEPLOYABLE" in record["sentence"]
    oracle = plan_of(manifest(), Experiment(select_on="oracle"))
    assert oracle.counts() == {"fold": 4}  # no final model
    assert not oracle.sides["siteA"].val


def test_a_plan_survives_json_and_an_altered_one_is_refused() -> None:
    plan = plan_of(manifest(), parse_experiment({"select_on": "leave-one-site-out-val", "variants": VARIANTS}, "test"))
    content = json.loads(json.dumps(plan.to_dict()))
    assert Plan.from_dict(content) == plan
    assert isinstance(Plan.from_dict(content).sides["siteA"].train[0], RecordingKey)
    content["runs"][0]["hash"] = "0" * 16
    with pytest.raises(FormatError, match="altered"):
        Plan.from_dict(content, "plan.json")
    with pytest.raises(FormatError, match=r"plan\.json: no readable plan"):
        Plan.from_dict({"runs": []}, "plan.json")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.lrr": 1}, r"cannot override 'optim\.lrr' \(did you mean 'optim\.lr'\?\)"),
        ({"data.target": "paper"}, "a variant may change model"),
        ({"surrogates": 3}, "cannot override 'surrogates'"),
        ({"optim": {"lr": 1}}, "cannot override 'optim'"),
        ({"optim.lr": -1}, r"variant 'bad': optim\.lr"),
        ({"seed": 3}, "cannot override 'seed'"),
    ],
)
def test_bad_variants_are_refused_when_the_recipe_is_read(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_experiment({"variants": {"bad": overrides, "good": {"optim.lr": 1e-3}}}, "test")


def test_labels_seeds_and_deploy_are_checked() -> None:
    for content, message in (
        ({"variants": {"a/b": {}}}, "letters, digits"),
        ({"seeds": [1, 1]}, "twice"),
        ({"variants": VARIANTS, "deploy": "slwo"}, "did you mean 'slow'"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_experiment(content, "test")


def test_a_variant_is_an_experiment_of_its_own() -> None:
    base = {"model": {"options": {"depth": 1}}, "optim": {"lr": 2e-3}, "seeds": [4, 5], "variants": {
        "deep": {"model.options.depth": 3}, "other": {"model.options.width": 8, "model.name": "biot"}}}  # fmt: skip
    experiment = parse_experiment(base, "test")
    deep, other = experiment.variant("deep"), experiment.variant("other", 5)
    assert (deep.model.options, deep.seed, deep.seeds, deep.variants) == ({"depth": 3}, 4, (), {})
    assert (other.model.name, other.model.options, other.seed) == ("biot", {"width": 8}, 5)
    assert other.optim.lr == pytest.approx(2e-3)
    with pytest.raises(RecipeError, match="did you mean 'deep'"):
        experiment.variant("deeep")


def test_models_bring_their_own_defaults_where_nobody_says_anything() -> None:
    defaults = {"neurobolt": {"lr": 1e-3, "clip": 1.0}, "biot": {"lr": 5e-4, "weight_decay": 0.1}}
    content = {"optim": {"weight_decay": 0.3}, "variants": {
        "a": {}, "b": {"model.name": "biot"}, "c": {"model.name": "biot", "optim.lr": 1e-2}}}  # fmt: skip
    full = with_model_defaults(parse_experiment(content, "test"), defaults)
    found = {label: (v.lr, v.weight_decay, v.clip) for label in "abc" for v in [full.variant(label).optim]}
    assert found == {"a": (1e-3, 0.3, 1.0), "b": (5e-4, 0.3, None), "c": (1e-2, 0.3, None)}
    again = with_model_defaults(parse_experiment(full.model_dump(mode="json"), "submitted"), defaults)
    assert again == full


def test_published_sizes_do_not_take_the_defaults_of_small_ones() -> None:
    defaults = {"neurobolt": {"lr": 1e-3, "weight_decay": 0.3}, "biot": {"lr": 5e-4}}
    content = {"model": {"preset": "paper"}, "variants": {
        "paper": {}, "small": {"model.preset": "small"}, "biot": {"model.name": "biot", "model.preset": "published"},
        "own": {"model.preset": "released", "optim.lr": 1e-4}}}  # fmt: skip
    full = with_model_defaults(parse_experiment(content, "test"), defaults)
    found = {label: (v.lr, v.weight_decay) for label in full.labels for v in [full.variant(label).optim]}
    published = (3e-4, 0.05)
    assert found == {"paper": published, "small": (1e-3, 0.3), "biot": published, "own": (1e-4, 0.05)}
    other = with_model_defaults(
        parse_experiment({"variants": {"a": {}, "b": {"model.preset": "paper"}}}, "t"), defaults
    )
    found = {label: (v.lr, v.weight_decay) for label in other.labels for v in [other.variant(label).optim]}
    assert found == {"a": (1e-3, 0.3), "b": published}
    assert with_model_defaults(parse_experiment(other.model_dump(mode="json"), "submitted"), defaults) == other


def test_folder_names_are_safe_and_stay_different() -> None:
    assert folder_name("field_strength=3") == "field_strength=3"
    names = {folder_name(label) for label in ("a/b", "a b", "a_b", "..", "é")}
    assert len(names) == 5
    assert not any(set(name) & set("/ ") or name.startswith(".") for name in names)
