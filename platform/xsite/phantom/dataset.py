"""Files that describe a whole site: data set description, participants, README, and the facts that make it a Site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from xsite.data.versions import software_versions
from xsite.phantom.habits import Habits
from xsite.phantom.presets import Preset
from xsite.phantom.write import write_json, write_table

BIDS_VERSION = "1.10.0"

_README = """# Phantom site {name}

Simulated simultaneous EEG-fMRI. **No person was recorded.** Written by `neurobolt-xsite` (`xsite.phantom`), preset
"{preset}", seed {seed}; the numbers and their sources are in `../consortium.json`.

- EEG: {eeg_format}, {sfreq:g} Hz, {n_chans} channels, reference {reference}
- mains {line_freq:g} Hz, volume marker `{marker}`; `{decoy}` is a decoy
- BOLD: TR {t_r:g} s, {voxel_mm:g} mm, already in MNI space; `derivatives/fmriprep` holds the raw image
  once more
- `derivatives/phantom`: the noise-free parcel series (the truth)
"""

_README_REAL = """# Semi-synthetic site {name}

EEG simulated by `neurobolt-xsite` (`xsite.phantom`, preset "{preset}", seed {seed}) from **real** BOLD parcel series.
Those were taken from `{source}` and stay under that file's licence (name its source wherever a figure is shown).
The EEG was never recorded.

- EEG: {eeg_format}, {sfreq:g} Hz, {n_chans} channels, reference {reference}
- mains {line_freq:g} Hz, volume marker `{marker}`
- `derivatives/parcels`: the series (TR {t_r:g} s); `derivatives/phantom`: the part of them that the EEG carries
"""


def write_description(
    root: Path, habits: Habits, preset: Preset, seed: int, subjects: list[str], source: str = ""
) -> None:
    """Write everything of a site that is not a recording; ``source`` names the file of real parcel series, if any."""
    root.mkdir(parents=True, exist_ok=True)
    software = {"Name": "neurobolt-xsite", "Version": software_versions()["neurobolt-xsite"]}
    terms = f"CC0 for the simulated EEG; the parcel series stay under the licence of {source}" if source else "CC0"
    common: dict[str, Any] = {"BIDSVersion": BIDS_VERSION, "License": terms, "GeneratedBy": [software]}
    about = {"Name": f"Phantom {habits.name}: simulated simultaneous EEG-fMRI", "DatasetType": "raw"}
    write_json(root / "dataset_description.json", about | common | {"Authors": ["the neurobolt-xsite developers"]})
    images = ("parcels", f"real parcel series from {source}") if source else ("fmriprep", "images in fMRIPrep's layout")
    for pipeline, title in (images, ("phantom", "noise-free BOLD")):
        facts = {"Name": f"Phantom {habits.name}: {title}", "DatasetType": "derivative"}
        folder = root / "derivatives" / pipeline
        write_json(folder / "dataset_description.json", facts | common)
        # time series of derivatives are not in BIDS yet; fMRIPrep ignores them in the same way
        (folder / ".bidsignore").write_text("*_timeseries.tsv\n*_timeseries.json\n", encoding="utf-8")
    values = {name: getattr(habits, name) for name in ("name", "eeg_format", "sfreq", "line_freq", "marker", "t_r")}
    values |= {"decoy": habits.decoy, "voxel_mm": habits.voxel_mm, "n_chans": len(habits.ch_names)}
    text = (_README_REAL if source else _README).format(
        preset=preset.name, seed=seed, reference=habits.reference_text, source=source, **values
    )
    (root / "README.md").write_text(text, encoding="utf-8")
    (root / "CHANGES").write_text("1.0.0 2026-11-22\n  - Simulated.\n", encoding="utf-8")
    (root / "LICENSE").write_text(f"{terms}\nCC0 1.0: https://creativecommons.org/publicdomain/zero/1.0/\n", "utf-8")
    labels = [f"sub-{subject}" for subject in subjects]
    write_table(root / "participants.tsv", {"participant_id": labels, "species": ["n/a"] * len(labels)})
    species = {"Description": "n/a: these subjects are simulated"}
    write_json(root / "participants.json", {"species": species})


def write_site_facts(path: Path, habits: Habits, n_subjects: int, n_recordings: int) -> None:
    """Write the YAML that :func:`xsite.data.site_file.load_site` reads."""
    facts = {
        "name": habits.name,
        "sfreq": float(habits.sfreq),
        "t_r": float(habits.t_r),
        "line_freq": float(habits.line_freq),
        "volume_marker": habits.marker,
        "ch_types": {name: kind for name, kind in habits.ch_types.items() if name in habits.ch_names},
        "eeg_state": "raw" if habits.gradient else "clean",
        "reference": habits.reference_text,
        "decoys": [habits.decoy] if habits.decoy else [],
        **({"extra_markers": "end"} if habits.extra_markers else {}),
        "license": "CC0-1.0",
        "expected": {"subjects": n_subjects, "recordings": n_recordings},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
