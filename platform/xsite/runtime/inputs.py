"""A study's recordings, once in the cluster's shared memory, and the facts about them that a driver needs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from xsite.data.harmonize import target_scale
from xsite.data.montages import canonical_montage, check_plan, common_channels, spline_plan
from xsite.data.store import (
    check_distinct_images,
    check_one_parcellation,
    data_hash,
    read_manifest,
    read_recording,
)
from xsite.errors import ChannelError, RecipeError, StoreError
from xsite.evaluation.folds import Segments, manifest_keys
from xsite.evaluation.sketches import Sketch, sketch_recording
from xsite.experiment import Experiment
from xsite.experiment_parts import Channels
from xsite.learning.targets import TargetSpec, median_scale, select_parcels, without_test_part
from xsite.recording import Float, Montage, Parcellation, RecordingKey
from xsite.runtime.cluster import gather
from xsite.spelling import counted, did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Facts:
    """What the driver knows of a recording without holding it."""

    ch_names: tuple[str, ...]
    positions: Float
    parcellation: Parcellation
    scale_R: Float
    has_truth: bool
    sketch: Sketch | None = None
    """For the leakage audit; None where nobody asked for one."""

    @property
    def montage(self) -> Montage:
        """Names and positions as one."""
        return Montage(self.ch_names, self.positions)


@dataclass(frozen=True, eq=False)
class StudyData:
    """The recordings of one study.

    Parameters
    ----------
    store : str
    manifest : DataFrame
        Rows of the study's sites that are not excluded.
    refs : dict of RecordingKey to object reference
    facts : dict of RecordingKey to Facts
    parcels : tuple of str
    """

    store: str
    manifest: pd.DataFrame
    refs: dict[RecordingKey, Any]
    facts: dict[RecordingKey, Facts]
    parcels: tuple[str, ...]

    @property
    def data_hash(self) -> str:
        """Of everything that the study reads."""
        return data_hash(self.manifest)

    @property
    def t_r(self) -> dict[RecordingKey, float]:
        """Repetition time of every recording, seconds."""
        return dict(zip(row_keys(self.manifest), self.manifest["t_r"].astype(float), strict=True))

    def hash_of(self, keys: Sequence[RecordingKey]) -> str:
        """Of some recordings only."""
        wanted = set(keys)
        return data_hash(self.manifest[[key in wanted for key in row_keys(self.manifest)]])

    def ch_names(self, experiment: Experiment, keys: Sequence[RecordingKey]) -> tuple[str, ...]:
        """Channels that a model is built for: shared by the whole study, canonical, or all that its recordings have."""
        if experiment.data.channels == "spline":
            return canonical_montage(experiment.data.montage).ch_names
        if experiment.data.channels == "common":
            return common_channels([facts.ch_names for facts in self.facts.values()])
        return common_channels([sorted({name for key in keys for name in self.facts[key].ch_names})])

    def baseline_channels(self, experiment: Experiment) -> tuple[tuple[str, ...], Channels]:
        """Channels of closed-form models, which need the same ones everywhere, and how they are made."""
        montages = [facts.montage for facts in self.facts.values()]
        if experiment.data.channels != "spline":
            try:
                return common_channels([montage.ch_names for montage in montages]), "common"
            except ChannelError as error:
                raise ChannelError(
                    "closed-form models need channels that all recordings share, and there are none: set "
                    "data.channels: spline, leave out sites (data.sites), or set baselines: [] and controls: []"
                ) from error
        plans = [spline_plan(montage, experiment.data.montage) for montage in montages]
        shared = set.intersection(*(set(plan.which(plan.usable_D)) for plan in plans))
        if not shared:
            raise ChannelError(
                f"no channel of data.montage ({', '.join(plans[0].ch_names)}) can be had from all recordings, and "
                "closed-form models need the same ones everywhere; leave sites out, or set baselines: []"
            )
        return tuple(name for name in plans[0].ch_names if name in shared), "spline"

    def spec(
        self, experiment: Experiment, train: Sequence[RecordingKey], segments: Segments | None = None
    ) -> TargetSpec:
        """Target path of a fold; its scale comes from the training recordings."""
        scale_R = median_scale([self.facts[key].scale_R for key in train])
        return TargetSpec(experiment.data.target, experiment.data.low_pass, scale_R, segments)

    def refs_of(self, keys: Sequence[RecordingKey]) -> list[Any]:
        """Object references, for tasks that may see these recordings whole."""
        return [self.refs[key] for key in keys]

    def training_refs(self, keys: Sequence[RecordingKey], spec: TargetSpec) -> tuple[Any, ...]:
        """Object references for a training: without the BOLD of test volumes where recordings have parts.

        A ``paper`` target is a statistic of the whole scan, test volumes included; hiding them would change it.
        """
        if spec.segments is None or spec.kind == "paper":
            return tuple(self.refs_of(keys))
        hide = ray.remote(num_cpus=1)(without_test_part)
        return tuple(hide.remote(ref, spec) for ref in self.refs_of(keys))


def absolute_store(store: str) -> str:
    """Absolute path, because workers run in other folders; a URL stays as it is."""
    return store if "://" in store else str(Path(store).resolve())


def select_manifest(store: str, experiment: Experiment) -> pd.DataFrame:
    """Rows of the store that the experiment uses.

    Raises
    ------
    RecipeError
        It names sites or parcels that the store does not hold.
    StoreError
        The recordings have different parcellations, two sites are readings of the same images, or none is left.
    """
    manifest = read_manifest(store)
    sites = experiment.data.sites
    known = sorted(set(manifest["site"]))
    if missing := [site for site in sites if site not in known]:
        raise RecipeError(
            f"data.sites names {missing}{did_you_mean(missing[0], known)}; the store {store} holds {known}"
        )
    asked = manifest[manifest["site"].isin(sites or known)]
    manifest = asked[~asked["excluded"].astype(bool)]
    gone = [site for site in sites if site not in set(manifest["site"])]
    if gone or manifest.empty:  # a site that was asked for must not vanish from a study in silence
        left_out = asked[asked["site"].isin(gone)] if gone else asked
        said = {str(site): str(rows["reason"].iloc[0]) for site, rows in left_out.groupby("site")}
        raise StoreError(
            f"{store}: every recording of {', '.join(gone) or 'the study'} is excluded; reasons in its manifest: "
            + "; ".join(f"{site}: {reason}" for site, reason in said.items())
        )
    check_one_parcellation(manifest)
    check_distinct_images(manifest)
    labels = json.loads(manifest["parcels"].iloc[0])
    if unknown := [parcel for parcel in experiment.data.parcels if parcel not in labels]:
        raise RecipeError(f"data.parcels names {unknown}{did_you_mean(unknown[0], labels)}; the store has {labels}")
    return manifest.reset_index(drop=True)


def row_keys(manifest: pd.DataFrame) -> list[RecordingKey]:
    """Key of every row, in row order."""
    columns = manifest[["site", "subject", "session", "task", "run"]].fillna("").astype(str)
    return [RecordingKey(*row) for row in columns.itertuples(index=False)]


def load_study(store: str, manifest: pd.DataFrame, experiment: Experiment, *, sketch: bool = False) -> StudyData:
    """Read every recording into shared memory, one Ray task each; with ``sketch``, draw it for the audit as well."""
    keys = manifest_keys(manifest)
    data = experiment.data
    read = ray.remote(num_cpus=1, num_returns=2)(_read)
    pairs = [read.remote(store, key, data.parcels, data.low_pass, sketch) for key in keys]
    facts = dict(zip(keys, gather([fact for _, fact in pairs]), strict=True))
    if data.channels == "common":
        warn_of_lost_channels({key: fact.ch_names for key, fact in facts.items()})
    if data.channels == "spline":
        tell_of_filled_channels({key: fact.montage for key, fact in facts.items()}, data.montage)
    parcels = facts[keys[0]].parcellation.labels
    return StudyData(store, manifest, dict(zip(keys, (ref for ref, _ in pairs), strict=True)), facts, parcels)


def warn_of_lost_channels(ch_names: Mapping[RecordingKey, Sequence[str]]) -> None:
    """Log which recordings cost the whole study which channels: one bad electrode takes its channel from all sites."""
    lost: dict[tuple[RecordingKey, ...], list[str]] = {}
    for name in common_channels([sorted({name for names in ch_names.values() for name in names})]):
        lacking = tuple(key for key, names in ch_names.items() if name not in names)
        if lacking:
            lost.setdefault(lacking, []).append(name)
    for keys, names in sorted(lost.items(), key=lambda item: len(item[0])):
        some = ", ".join(map(str, keys[:3])) + (", ..." if len(keys) > 3 else "")
        logger.warning(
            "channels %s are left out of the whole study: %d of %d recordings lack them (%s)",
            ", ".join(names),
            len(keys),
            len(ch_names),
            some,
        )
    if lost:
        logger.warning("to keep them, set data.channels: native (absent ones masked) or spline (absent ones filled in)")


def tell_of_filled_channels(montages: Mapping[RecordingKey, Montage], ch_names: Sequence[str]) -> None:
    """Log per site what splines fill in and what stays masked; refuse recordings that give nothing.

    Raises
    ------
    ChannelError
        Recordings that have none of the channels and no electrode near them, all of them named.
    """
    refused, groups = [], dict[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], int]()
    for key, montage in montages.items():
        plan = spline_plan(montage, ch_names)
        try:
            check_plan(plan, montage, key)
        except ChannelError as error:
            refused.append(str(error))
        filled, masked = plan.which(plan.usable_D & ~plan.recorded_D), plan.which(~plan.usable_D)
        group = key.site, filled, masked, plan.unplaced
        groups[group] = groups.get(group, 0) + 1
    if refused:
        raise ChannelError("\n".join(refused))
    for (site, filled, masked, unplaced), n in groups.items():
        words = [f"{what} {', '.join(names)}" for what, names in (("filled in:", filled), ("masked:", masked)) if names]
        if unplaced:
            words.append(f"without a position, of no help to others: {', '.join(unplaced)}")
        if words:
            logger.warning("%s, %s: %s", site, counted(n, "recording"), "; ".join(words))


def _read(store: str, key: RecordingKey, parcels: tuple[str, ...], low_pass: float, sketch: bool) -> tuple[Any, Facts]:
    recording = select_parcels(read_recording(store, key), parcels)
    scale_R = target_scale(recording.bold, recording.t_r, low_pass, valid_V=recording.volume_valid)
    return recording, Facts(
        recording.ch_names,
        np.asarray(recording.montage.positions),
        recording.parcellation,
        scale_R,
        recording.truth is not None,
        sketch_recording(recording, low_pass) if sketch else None,
    )
