"""Pairing on the names of real data sets (sites.md, catalogue 1 to 6): who belongs together, and who never does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from published import publish

from xsite.data.bids import find_recordings, pair_files
from xsite.data.inheritance import channels_path, eeg_json_paths, events_path, inherited
from xsite.errors import SiteError
from xsite.site import Site

R128 = ("Response/R128",) * 8
GENERIC = Site(name="generic", sfreq=1000.0, t_r=2.0, line_freq=50.0, volume_marker="R128", bold_space="template")


LOOKALIKES = {
    "ds002814": (("sub-01",), "that of session mri was recorded at another time"),
    "ds004196": (("sub-01", "sub-02"), "was recorded at another time"),
    "ds004718": (("sub-HK001", "sub-HK002"), "no BOLD with the same entities (nearest: "),
    "ds004796": (("sub-01", "sub-02"), "cannot tell which belong together"),
    "ds004917": (("sub-05", "sub-06"), "no 'R128' among the EEG's markers"),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_fault_2_lookalikes_are_never_paired(shared_data, tmp_path, name):
    subjects, words = LOOKALIKES[name]
    sidecars = shared_data(f"sites/lookalikes-not-simultaneous/{name}")
    bare = pair_files(sidecars, GENERIC)
    assert bare.recordings == []
    assert any("is not; complete the download" in reason for reason in bare.unpaired.values())
    root = publish(sidecars, tmp_path, subjects)
    pairing = pair_files(root, GENERIC)
    assert pairing.recordings == []
    assert any(words in reason for path, reason in pairing.unpaired.items() if path.parent.name == "eeg")
    with pytest.raises(SiteError, match="no simultaneous EEG and BOLD run"):
        find_recordings(root, GENERIC)


@pytest.mark.parametrize("name", ["ds004718", "ds004796", "ds004917"])
def test_fault_2_lookalikes_with_the_same_names_need_evidence_too(shared_data, tmp_path, name):
    """Even where their names are made equal, for the worst case."""
    sidecars = shared_data(f"sites/lookalikes-not-simultaneous/{name}")
    root = publish(sidecars, tmp_path, LOOKALIKES[name][0])
    for image in sorted(root.rglob("*_bold.nii.gz")):
        plain = "_".join(part for part in image.name.split("_") if part.partition("-")[0] not in ("run", "dir"))
        image.rename(image.with_name(plain))
    pairing = pair_files(root, GENERIC)
    assert pairing.recordings == []
    assert any("nothing shows that they are simultaneous" in reason for reason in pairing.unpaired.values())


def test_fault_6_real_inheritance(shared_data):
    root = shared_data("sites/ds002336")
    eeg = root / "sub-xp101" / "eeg" / "sub-xp101_task-motorloc_eeg.vhdr"  # not there: only its sidecars are
    assert channels_path(eeg) == root / "task-motorloc_channels.tsv"
    assert eeg_json_paths(eeg) == [root / "task-motorloc_eeg.json"]
    assert events_path(eeg) is None
    bold = root / "sub-xp101" / "func" / "sub-xp101_task-motorloc_bold.nii.gz"
    assert [path.parent.name for path in inherited(bold, "bold.json")] == ["ds002336", "func"]


REAL = {  # site: subjects, facts, recordings paired, and what is left out, by the manifest of the whole data set
    "ds002336": (
        ("sub-xp102", "sub-xp109"),
        {},
        9,
        {"sub-xp102_task-eegNF_eeg.vhdr": "no BOLD", "sub-xp109_task-MIpre_bold.nii.gz": "no EEG"},
    ),
    "ds002338": (
        ("sub-xp219", "sub-xp220"),
        {},
        9,
        {"sub-xp219_task-1dNF_run-03_eeg.vhdr": "no BOLD", "sub-xp220_task-1dNF_run-04_bold.nii.gz": "no EEG"},
    ),
    "ds002158": (
        ("sub-12", "sub-19"),
        {"tasks": ("main",), "task_pairs": {"sub-12_ses-001_task-main_run-00": "run-006"}},
        11,
        {
            "sub-19_ses-001_task-main_run-006_eeg.vhdr": "no BOLD",
            "sub-12_ses-001_task-rest_run-001_bold.nii.gz": "not recorded simul",
        },
    ),
    "ds006040": (
        ("sub-001",),
        {"task_pairs": {f"{task}ON": task for task in ("GRAD", "IMGRAD", "IMAG", "EO", "EC", "CB")}},
        10,
        {"sub-001_task-ECOFF_run-1_eeg.set": "no BOLD"},
    ),
    "ds003768": (("sub-01",), {}, 0, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_faults_1_to_4_real_names(shared_data, tmp_path, name):
    subjects, facts, n_pairs, left_out = REAL[name]
    root = publish(shared_data(f"sites/{name}"), tmp_path, subjects, R128)
    pairing = pair_files(root, replace(GENERIC, **facts))
    found = {path.name: reason for path, reason in pairing.unpaired.items()}
    for file, words in left_out.items():
        assert words in found[file], found
    assert len(pairing.recordings) == (n_pairs or len(list(root.rglob("*_bold.nii.gz"))))


WHOLE = {  # recordings that pair by their names in the whole data set, as counted in sites.md
    "ds002336": ({}, 53),
    "ds002338": ({}, 84),
    "ds002158": ({"tasks": ("main",), "task_pairs": {"sub-12_ses-001_task-main_run-00": "run-006"}}, 116),
    "ds003768": ({}, 255),
    "ds006040": ({"task_pairs": {f"{task}ON": task for task in ("GRAD", "IMGRAD", "IMAG", "EO", "EC", "CB")}}, 280),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole_data_sets_pair_as_counted(shared_data, tmp_path, name):
    facts, count = WHOLE[name]
    root = publish(shared_data(f"sites/{name}"), tmp_path, None, R128)
    assert len(pair_files(root, replace(GENERIC, **facts)).recordings) == count
