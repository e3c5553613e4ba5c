"""Write a consortium: several sites, each a BIDS data set, with atlas, truth and oracle.

``OUT/<site>/`` is a site's BIDS root, ``OUT/sites/<site>.yaml`` its facts, ``OUT/atlas/`` the parcellation,
``OUT/oracle.tsv`` the ceiling per recording and parcel, ``OUT/consortium.json`` every number that made it.
A site appears under its name only when it is complete.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from xsite.errors import RecipeError
from xsite.phantom.atlas import NAME, write_atlas
from xsite.phantom.bold import SimulatedBold, simulate_bold
from xsite.phantom.habits import pick_habits
from xsite.phantom.oracle import series_r
from xsite.phantom.plan import Plan, Stream
from xsite.phantom.presets import Preset, get_preset
from xsite.phantom.real_bold import Drivers, generate_from_bold
from xsite.phantom.sites import Consortium, Progress, Rows, oracle_table, start_folder, write_sites
from xsite.phantom.write import write_bold, write_eeg, write_truth
from xsite.signals.bold import image_to_parcels
from xsite.signals.bold_cleaning import clean_like, clean_parcels
from xsite.signals.parcels import Atlas, load_atlas

__all__ = ["Consortium", "Progress", "generate_consortium", "make_recording"]


def generate_consortium(
    out: str | Path,
    *,
    n_sites: int = 4,
    n_subjects: int | None = None,
    preset: str | Preset = "easy",
    seed: int = 0,
    minutes: float = 5.0,
    bold_from: str | Path | None = None,
    drivers: Drivers = "paper",
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Consortium:
    """Write a consortium of phantom sites, or complete one that was interrupted.

    Parameters
    ----------
    out : path
        A new or empty folder, or one that the same call left incomplete.
    n_sites : int
        At most eight.
    n_subjects : int, optional
        Subjects of each site, four by default; with ``bold_from``, how many of the file's subjects (all by default).
    preset : str or Preset
        A name in :data:`xsite.phantom.presets.PRESETS`.
    seed : int
        Same seed, same signals; more subjects or sites leave the others unchanged.
    minutes : float
        Length of each scan.
    bold_from : path, optional
        NPZ of real parcel series; see :mod:`xsite.phantom.real_bold`. Sites and lengths then follow from the file.
    drivers : {"paper", "components"}
        With ``bold_from``: which of its columns drive the EEG.
    n_jobs : int
        Processes.
    progress : callable (done, total, text), optional

    Raises
    ------
    RecipeError
        A number out of range, or ``out`` holds something else.
    StoreError
        Not enough room on the disk.
    """
    chosen, out = get_preset(preset), Path(out)
    if bold_from is not None:
        return generate_from_bold(
            out,
            bold_from,
            preset=chosen,
            seed=seed,
            drivers=drivers,
            max_subjects=n_subjects,
            n_jobs=n_jobs,
            progress=progress,
        )
    n_subjects = 4 if n_subjects is None else n_subjects
    if n_subjects < 1 or minutes < 1:
        raise RecipeError(f"{n_subjects} subjects of {minutes:g} minutes: at least one subject and one minute")
    plans = [
        Plan(habits, chosen, seed, site_index, subject, round(minutes * 60 / habits.t_r))
        for site_index, habits in enumerate(pick_habits(n_sites))
        for subject in range(n_subjects)
    ]
    settings = {"n_sites": n_sites, "n_subjects": n_subjects, "seed": seed, "minutes": minutes}
    start_folder(out, settings | {"preset": chosen.numbers()}, plans)
    write_atlas(out / "atlas")
    return write_sites(out, plans, make_recording, n_jobs=n_jobs, progress=progress)


def make_recording(plan: Plan, root: Path, out: Path) -> Rows:
    """Simulate one recording, write it below ``root``, and return its oracle rows."""
    atlas = load_atlas(out / "atlas" / f"{NAME}.nii.gz")
    drive_RD = plan.draw_drive()
    write_eeg(plan, plan.scalp(drive_RD), root)
    subject, times_V = plan.draw_subject(), plan.sample_times()
    bold = simulate_bold(plan.habits, plan.preset, subject, drive_RD, times_V, plan.rng(Stream.BOLD))
    write_bold(plan, bold, root)
    return _oracle_rows(plan, bold, atlas, root)


def _oracle_rows(plan: Plan, bold: SimulatedBold, atlas: Atlas, root: Path) -> Rows:
    truth_VR = image_to_parcels(bold.noise_free, atlas, source=f"{plan.entities}, noise-free").series_VR
    write_truth(plan, truth_VR, atlas.parcellation.labels, root)
    measured = image_to_parcels(bold.measured, atlas, source=plan.entities)
    names = tuple(bold.confounds)
    table = pd.DataFrame(bold.confounds).to_numpy()
    clean = clean_parcels(measured.series_VR, table, names, plan.habits.t_r, global_signal_V=None)
    scores_R = series_r(clean_like(truth_VR, clean.design_VP), clean.bold_VR, plan.habits.t_r)
    return oracle_table(plan, atlas.parcellation.labels, scores_R)
