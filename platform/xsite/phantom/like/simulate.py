"""Coupled EEG and BOLD of one phantom run, through the phantom's own sources, head, response and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xsite.phantom.bold import SimulatedBold, simulate_bold
from xsite.phantom.eeg import ScalpEeg, Timing, amplifier_channels, simulate_scalp
from xsite.phantom.habits import Habits
from xsite.phantom.like.plan import LikeRun, LikeSite
from xsite.phantom.like.timing import eeg_duration, volume_triggers
from xsite.phantom.plan import Stream
from xsite.phantom.presets import Preset, get_preset
from xsite.phantom.sources import Subject, draw_drive, draw_subject
from xsite.recording import Float
from xsite.signals.montage import canonical_name

Rows = Iterator[tuple[str, NDArray[np.float32]]]
QUIET_S = 60.0
"""EEG and drive are simulated for at least as long: slow fluctuations need room."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """One run: rows of the EEG file (to be read once), electrode positions by file name (m), and images."""

    rows: Rows
    positions: dict[str, Float]
    bold: SimulatedBold | None


def simulate(like: LikeSite, run: LikeRun, seed: int, preset_name: str = "easy") -> Simulated:
    """EEG of ``eeg_duration`` seconds and images of ``n_volumes`` volumes, driven by the same neural sources."""
    preset = replace(get_preset(preset_name), gradient_residue_uv=0.0 if like.raw else like.residue_uv)
    triggers, duration = volume_triggers(like, run), eeg_duration(like, run)
    subject = draw_subject(preset, _rng(like, run, seed, Stream.SITE), _rng(like, run, seed, Stream.SUBJECT))
    share = like.reference_share if like.reference_share >= 0 else 0.5  # uncorrected slices: the middle on average
    times_V = triggers + share * like.site.t_r
    length = max(duration, float(times_V.max(initial=0.0)) + 1, QUIET_S)
    drive_RD = draw_drive(preset, _rng(like, run, seed, Stream.DRIVE), length)
    habits = _habits(like, like.ch_names, {name: like.kind(name) for name in like.ch_names})
    rows: Rows = iter(())
    positions: dict[str, Float] = {}
    if run.eeg is not None:
        during = triggers[(triggers >= 0) & (triggers < duration)]
        timing = Timing(duration, during if len(during) else np.array([duration]), like.site.t_r)
        scalp = _scalp(like, preset, subject, drive_RD, timing, _rng(like, run, seed, Stream.SCALP))
        rows = amplifier_channels(scalp, habits, preset, timing, _rng(like, run, seed, Stream.AMPLIFIER))
        names = [name for name in like.ch_names if like.kind(name) == "eeg"]
        positions = dict(zip(names, scalp.positions_C3, strict=True)) if like.positions else {}
    bold = None
    if run.bold is not None and run.n_volumes:
        bold = simulate_bold(habits, preset, subject, drive_RD, times_V, _rng(like, run, seed, Stream.BOLD))
    return Simulated(rows, positions, bold)


def _rng(like: LikeSite, run: LikeRun, seed: int, stream: Stream) -> np.random.Generator:
    """Generator of one purpose; the name of site, subject and run decides, so that other runs change nothing."""
    where = (like.site.name, run.key.subject, run.key.entities)
    words = where[: {Stream.SITE: 1, Stream.SUBJECT: 2}.get(stream, 3)]
    return np.random.default_rng([seed, *(crc32(word.encode()) for word in words), int(stream)])


def _habits(like: LikeSite, names: tuple[str, ...], types: dict[str, str]) -> Habits:
    return Habits(
        name=like.site.name,
        eeg_format="brainvision",
        sfreq=like.rate,
        ch_names=names,
        reference=like.reference,
        line_freq=like.site.line_freq,
        marker=like.site.volume_marker or "",
        t_r=like.site.t_r,
        voxel_mm=like.bold_shape_mm,
        slices=like.slices,
        gradient=like.raw,
        ch_types={name: kind for name, kind in types.items() if kind != "eeg"},
    )


def electrode_pair(like: LikeSite, name: str) -> tuple[str, ...]:
    """10-05 electrodes behind a channel of the file: one, or two whose difference it is."""
    spelled = like.electrodes.get(name) or like.site.rename.get(name) or name.replace("\u00a0", " ")
    return tuple(canonical_name(part) for part in spelled.split("-") if part)


def _scalp(
    like: LikeSite, preset: Preset, subject: Subject, drive_RD: Float, timing: Timing, rng: np.random.Generator
) -> ScalpEeg:
    """EEG channels of the file, in its order: electrodes, or differences of two where the montage is bipolar."""
    pairs = [electrode_pair(like, name) for name in like.ch_names if like.kind(name) == "eeg"]
    electrodes = tuple(dict.fromkeys(name for pair in pairs for name in pair))
    everywhere = simulate_scalp(_habits(like, electrodes, {}), preset, subject, drive_RD, timing, rng)
    mixing_CE = np.zeros((len(pairs), len(electrodes)), np.float32)
    for row, pair in enumerate(pairs):
        for name, sign in zip(pair, (1.0, -1.0), strict=False):
            mixing_CE[row, electrodes.index(name)] += sign
    places = np.stack([everywhere.positions_C3[electrodes.index(pair[0])] for pair in pairs])
    return ScalpEeg(mixing_CE @ everywhere.eeg_CT, places, everywhere.beats)
