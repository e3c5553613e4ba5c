"""Tune a study's variants with Ray Tune: the same number of draws for each, judged on training sites only.

A trial is one configuration, trained in turn on every fold's training recordings; after each fold it reports its mean
error on the *validation* recordings of the folds' training sites so far. Folds are the rungs of ASHA (Li et al. 2020):
after 1, 2, 4, ... folds the worse half of a variant's trials stops. Variants never compete with one another for budget.
Held-out recordings are not read, not even by the driver, unless they train in another fold.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import optuna
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from xsite.errors import ClusterError, FoldError, RecipeError, XsiteError
from xsite.evaluation.folds import Fold
from xsite.evaluation.splits import make_folds
from xsite.experiment import Experiment
from xsite.learning.algorithms import ALGORITHMS, build_algorithm
from xsite.learning.loop import fit
from xsite.learning.memory import keep_freed_memory
from xsite.learning.search_space import Overrides, Range, Space, draw, search_space, tuned
from xsite.learning.seeds import seed_everything
from xsite.runtime.audit import check_windows
from xsite.runtime.cluster import check_room, environment
from xsite.runtime.fold_job import FoldJob, ModelFactory
from xsite.runtime.inputs import absolute_store, load_study, row_keys, select_manifest
from xsite.runtime.job_windows import sources
from xsite.runtime.plans import check_models, make_job
from xsite.runtime.study import StudyFolder
from xsite.runtime.trials import FAILED, Trials, best_trial
from xsite.spelling import counted

# results come through the callback; the files that Tune misses are its own loggers', which are off
logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)

Search = Literal["random", "optuna"]
SEARCHES: tuple[Search, ...] = get_args(Search)
METRIC = "score"
HALVING = 2
_TUNE_SETTINGS: dict[str, str | None] = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C would end as if all were done
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and how much of it.

    Parameters
    ----------
    experiment : Experiment
    store : str
    samples : int
        Draws per variant; the first is the recipe itself.
    search : {"random", "optuna"}
        Random draws are the same for the same recipe, whatever runs at once. Optuna's (TPE) learn from the trials that
        have ended, so they are repeated exactly only where one trial runs at a time.
    halving : bool
        False trains every draw on every fold (no ASHA).
    option_ranges : mapping
        As ``defaults`` of :func:`xsite.learning.search_space.search_space`.
    """

    experiment: Experiment
    store: str
    samples: int
    search: Search = "random"
    halving: bool = True
    option_ranges: Mapping[str, Mapping[str, Any]] | None = None

    def spaces(self) -> dict[str, Space]:
        """Search space of every variant."""
        return {
            label: search_space(self.experiment, label, self.option_ranges or {}) for label in self.experiment.labels
        }


def run_tuning(tuning: Tuning, folder: str | Path, build_model: ModelFactory, say: Say = print) -> dict[str, Trials]:
    """Train what is missing of every variant's draws; trials by variant, all of them finished.

    Raises
    ------
    RecipeError, FoldError, StoreError
        The recipe cannot be tuned as asked, the folder holds another tuning, or no draw of a variant could be trained.
    ClusterError
        There is no room, or trials died.
    """
    spaces = tuning.spaces()
    folds, jobs = tuning_jobs(tuning)
    windows = check_models([job for own in jobs.values() for job in own], build_model)
    check_windows(tuning.experiment.folds, windows)
    study = StudyFolder(folder)
    found = {}
    for label, space in spaces.items():
        identity = _identity(tuning, space, jobs[label])
        identity["recipe_first"] = tuning.search == "random" or _own_point(tuning, label, space) is not None
        trials = Trials.open(study, label, identity, [fold.held_out for fold in folds])
        _tune(tuning, label, space, jobs[label], trials, build_model, study.path / ".ray_tune", say)
        if best_trial(trials) is None:
            raise RecipeError(f"no draw of variant {label!r} could be trained: {trials.first_message()}")
        found[label] = trials
    return found


def tuning_jobs(tuning: Tuning) -> tuple[list[Fold], dict[str, list[FoldJob]]]:
    """Folds, and per variant one training for each; only recordings that train or validate somewhere are read."""
    experiment, store = tuning.experiment, absolute_store(tuning.store)
    manifest = select_manifest(store, experiment)
    folds = make_folds(manifest, experiment.folds, seed=experiment.seed)
    if bare := [fold.held_out for fold in folds if not fold.val]:
        raise FoldError(f"{', '.join(bare)}: no validation recordings, so nothing to tune on; raise folds.val_fraction")
    seen = {key for fold in folds for key in (*fold.train, *fold.val)}
    rows = [key in seen for key in row_keys(manifest)]
    data = load_study(store, manifest[rows].reset_index(drop=True), experiment)
    seed = experiment.training_seeds[0]
    jobs = {
        label: [
            make_job(
                experiment.variant(label, seed), data, fold.train, fold.val, label=f"{fold.held_out}/{label}",
                held_out=fold.held_out, folder=Path("unused"), selected_on="train-site-val", model=label,
                segments=fold.segments,
            )
            for fold in folds
        ]
        for label in experiment.labels
    }  # fmt: skip
    return folds, jobs


def train_fold(job: FoldJob, overrides: Overrides, build_model: ModelFactory) -> dict[str, Any]:
    """Validation error of one configuration on one fold; weights are not kept.

    Returns
    -------
    dict
        ``error`` (lowest masked mean squared validation error), ``best_epoch``, ``epochs``, ``seconds``, ``message``;
        a configuration whose loss stops being a number has the error :data:`~xsite.runtime.trials.FAILED`.
    """
    started = time.perf_counter()
    experiment = tuned(job.experiment, overrides)
    spec, parcels = experiment.model, job.config["parcels"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        seed_everything(*job.seed)
        model = build_model(
            spec.name, spec.preset, spec.options, ch_names=job.config["ch_names"], n_outputs=len(parcels)
        )
        algorithm = build_algorithm(experiment.algorithm.name, experiment.algorithm.options, model)
        train, val = sources(job, experiment, model, device)
        result = fit(algorithm, train, val, experiment.optim, seed=job.seed[0], device=device)
    except XsiteError as error:
        return {"error": FAILED, "best_epoch": 0, "epochs": 0, "seconds": 0.0, "message": str(error)}
    error_of_best = min(row["val_loss"] for row in result.history)
    facts = {"best_epoch": result.best_epoch, "epochs": len(result.history), "message": ""}
    return {"error": error_of_best, "seconds": time.perf_counter() - started, **facts}


def run_trial(config: Mapping[str, Any], *, jobs: Sequence[FoldJob], build_model: ModelFactory, threads: int) -> None:
    """One trial of Ray Tune: fold after fold, a report after each; folds known from an earlier run are not repeated."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    drawn = config.get("drawn")
    overrides: Overrides = dict(config) if drawn is None else drawn["overrides"]
    known = {} if drawn is None else drawn["folds"]
    errors = []
    for job in jobs:
        row = known.get(job.held_out) or train_fold(job, overrides, build_model)
        errors.append(row["error"])
        tune.report({METRIC: math.fsum(errors) / len(errors), "fold": job.held_out, **row})
        if row["error"] >= FAILED:
            return


def _tune(
    tuning: Tuning,
    label: str,
    space: Space,
    jobs: Sequence[FoldJob],
    trials: Trials,
    build_model: ModelFactory,
    storage: Path,
    say: Say,
) -> None:
    missing = tuning.samples - trials.n_ended
    if missing <= 0:
        say(f"{label}: {counted(trials.n_ended, 'draw was', 'draws were')} finished")
        return
    scale = tuning.experiment.scale
    cpus, gpus = scale.workers * scale.cpus_per_worker, scale.gpus_per_worker
    room = check_room(cpus, gpus, "one trial")
    trainable = tune.with_parameters(run_trial, jobs=list(jobs), build_model=build_model, threads=max(1, int(cpus)))
    param_space, search = _draws(tuning, label, space, trials, missing)
    config = tune.TuneConfig(
        num_samples=1 if search is None else missing, search_alg=search,
        scheduler=_scheduler(trials, len(jobs)) if tuning.halving else None, max_concurrent_trials=room,
        reuse_actors=True,
    )  # fmt: skip
    progress = _Progress(trials, space, say)
    try:
        with environment(_TUNE_SETTINGS):
            results = tune.Tuner(
                tune.with_resources(trainable, {"CPU": cpus} | ({"GPU": gpus} if gpus else {})),
                param_space=param_space,
                tune_config=config,
                run_config=tune.RunConfig(
                    name=f"{os.getpid()}-{time.time_ns()}", storage_path=str(storage), callbacks=[progress], verbose=0
                ),
            ).fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if results.errors:
        last = [line for line in str(results.errors[0]).splitlines() if line.strip()][-1]
        died = counted(len(results.errors), "trial")
        raise ClusterError(f"{died} of {label} died: {last}; run the same command again to go on")


def _draws(
    tuning: Tuning, label: str, space: Space, trials: Trials, missing: int
) -> tuple[dict[str, Any], OptunaSearch | None]:
    """What Tune is to try: our own draws as a list, or Optuna with what is known so far."""
    if tuning.search == "random":
        open_draws = [i for i in range(tuning.samples) if not trials.ended(i)]
        todo = [
            {"draw": i, "overrides": draw(tuning.experiment, label, space, i), "folds": trials.folds_of(i)}
            for i in open_draws
        ]
        return {"drawn": tune.grid_search(todo)}, None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = _own_point(tuning, label, space)
    past, scores = trials.evaluated(space)
    search = OptunaSearch(
        space={key: _distribution(found) for key, found in space.items()}, metric=METRIC, mode="min",
        points_to_evaluate=past or ([own] if own else None), evaluated_rewards=scores or None,
        # after a pause the sampler must not repeat the draws that it began with
        sampler=optuna.samplers.TPESampler(seed=tuning.experiment.seed + 7919 * len(trials.rows)),
    )  # fmt: skip
    return {}, search


def _own_point(tuning: Tuning, label: str, space: Space) -> Overrides | None:
    """The recipe's own values, if each is known and inside its range: Optuna's first trial."""
    variant = tuning.experiment.variant(label)
    options = inspect.signature(
        ALGORITHMS[variant.algorithm.name]
    ).parameters  # what the recipe leaves to the algorithm
    flat = {f"algorithm.options.{name}": option.default for name, option in options.items()} | variant.flat()
    for key, found in space.items():
        value = flat.get(key)
        if found.kind == "choice":
            inside = value in found.values
        else:
            inside = isinstance(value, int | float) and found.values[0] <= value <= found.values[1]
        if not inside:
            return None
    return {key: flat[key] for key in space}


def _distribution(found: Range) -> Any:
    if found.kind == "choice":
        return optuna.distributions.CategoricalDistribution(found.values)
    low, high = found.values
    return optuna.distributions.FloatDistribution(low, high, log=found.kind == "loguniform")


def _scheduler(trials: Trials, n_folds: int) -> ASHAScheduler:
    """ASHA that remembers the trials of earlier runs: they set the bar for those that are still to come."""
    scheduler = ASHAScheduler(
        time_attr="training_iteration", metric=METRIC, mode="min", max_t=max(1, n_folds), grace_period=1,
        reduction_factor=HALVING,
    )  # fmt: skip
    for past in trials.past():
        scheduler.on_trial_add(cast(Any, None), cast(Any, past))
        for n, score in enumerate(past.scores, start=1):
            scheduler.on_trial_result(cast(Any, None), cast(Any, past), {"training_iteration": n, METRIC: score})
    return scheduler


class _Progress(tune.Callback):  # type: ignore[misc]  # Ray ships no types for it
    """In the driver: note every fold of every trial on disk as soon as it is known."""

    def __init__(self, trials: Trials, space: Space, say: Say) -> None:
        self.trials, self.space, self.say = trials, space, say
        self.first = max(trials.rows, default=-1) + 1

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A fold of a trial is done."""
        index, overrides = self._who(trial, trials)
        names = ("error", "best_epoch", "epochs", "seconds", "message")
        self.trials.note(index, overrides, str(result["fold"]), {name: result[name] for name in names})
        shown = "failed: " + result["message"] if result["error"] >= FAILED else f"error {result['error']:.4f}"
        self.say(f"{self.trials.variant} draw {index} fold {result['fold']}: {shown} (mean {result[METRIC]:.4f})")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial ended, by itself or by ASHA."""
        self.trials.end(self._who(trial, trials)[0])

    def _who(self, trial: Any, trials: Sequence[Any]) -> tuple[int, Overrides]:
        drawn = trial.config.get("drawn")
        if drawn is not None:
            return int(drawn["draw"]), dict(drawn["overrides"])
        index = [one.trial_id for one in trials].index(trial.trial_id)  # in the order in which Optuna drew them
        return self.first + index, {key: trial.config[key] for key in self.space}


def _identity(tuning: Tuning, space: Space, jobs: Sequence[FoldJob]) -> dict[str, Any]:
    """What must be equal for trials to be of one tuning; more samples are not another one."""
    ranges = {key: [found.kind, list(found.values)] for key, found in space.items()}
    how = {"search": tuning.search, "halving": tuning.halving, "seed": tuning.experiment.seed}
    return {**how, "space": ranges, "trainings": [job.fingerprint for job in jobs]}
