"""What each model of a study knew of the test site before it was scored: the column ``access`` of every table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from xsite.evaluation.selection import SELECTED
from xsite.experiment import Experiment
from xsite.learning.adaptation import UNLABELLED, access_level, input_alignment, reads_whole_recording
from xsite.runtime.closed_form import BaselineFactory
from xsite.runtime.fold_job import FoldJob, ModelFactory


def closed_form_access(experiment: Experiment, baselines: Mapping[str, BaselineFactory]) -> dict[str, str]:
    """What each baseline knew of the test site: aligned EEG reaches them too, a model's own adaptation does not.

    Those that set a window beside the whole recording (ridge, vigilance) had its unlabelled EEG anyway.
    """
    aligned = input_alignment(experiment.data.adapt) is not None
    whole = [name for name in experiment.baselines if aligned or reads_whole_recording(baselines[name]())]
    return {name: UNLABELLED if name in whole else "none" for name in experiment.baselines}


def trained_access(experiment: Experiment, whole: Collection[str], chosen: Collection[str]) -> dict[str, str]:
    """What each variant knew of the test site, and what the chosen ones knew together.

    Parameters
    ----------
    whole : collection of str
        Of :func:`whole_recording_variants`.
    chosen : collection of str
        Variants that were chosen in some fold.
    """
    level = access_level(experiment.data.adapt)
    levels = {label: UNLABELLED if label in whole else level for label in experiment.labels}
    return levels | {SELECTED: UNLABELLED if {*whole} & {*chosen} else level}


def whole_recording_variants(jobs: Iterable[FoldJob], build_model: ModelFactory) -> set[str]:
    """Variants whose model reads the EEG of a whole recording before it predicts one window of it."""
    found = set()
    for job in {job.model: job for job in jobs}.values():
        spec, config = job.experiment.model, job.config
        names, n_outputs = config["ch_names"], len(config["parcels"])
        if reads_whole_recording(
            build_model(spec.name, spec.preset, spec.options, ch_names=names, n_outputs=n_outputs)
        ):
            found.add(job.model)
    return found
