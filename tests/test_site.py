"""Facts of a site, and private sites from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from xsite.data.site_file import load_site
from xsite.errors import SiteError
from xsite.recording import Montage, Parcellation, Recording, RecordingKey
from xsite.site import Site

FACTS = "name: ours\nsfreq: 5000\nt_r: 2.1\nline_freq: 50\nvolume_marker: R128\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ours.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_site_needs_no_code(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, FACTS + "ch_names: [Fp1, Fp2]\nexpected: {subjects: 3}\n"))
    assert (site.t_r, site.ch_names, site.expected.subjects) == (2.1, ("Fp1", "Fp2"), 3)
    assert site.read_eeg is None
    assert (site.bold_space, site.extra_markers, site.missing_markers) == ("derivative", None, None)
    site = load_site(write(tmp_path, FACTS + "bold_space: template\nextra_markers: end\nmissing_markers: start\n"))
    assert (site.bold_space, site.extra_markers, site.missing_markers) == ("template", "end", "start")


def test_yaml_site_reports_unknown_and_missing_keys_together(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"did you mean 't_r'.*missing keys: \['t_r', 'line_freq', 'volume_marker'\]"):
        load_site(write(tmp_path, "name: ours\nsfreq: 5000\ntr: 2.1\n"))


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ("t_r: 2100", "milliseconds"),
        ("line_freq: 55", "50 or 60"),
        ("sfreq: 0", "sfreq is 0"),
        ("eeg_state: dirty", "eeg_state"),
        ("bold_space: native", "bold_space is 'native'"),
        ("extra_markers: middle", "extra_markers is 'middle'"),
        ("missing_markers: middle", "missing_markers is 'middle'"),
        ("expected: {persons: 3}", r"ours\.yaml: .*persons"),
        ("ch_names: 3", r"ours\.yaml: "),
    ],
)
def test_implausible_facts_are_refused(tmp_path: Path, fact: str, expected: str) -> None:
    key = fact.split(":")[0]
    text = "".join(line + "\n" for line in FACTS.splitlines() if not line.startswith(key + ":"))
    with pytest.raises(SiteError, match=expected):
        load_site(write(tmp_path, text + fact + "\n"))


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="not valid YAML"):
        load_site(write(tmp_path, FACTS + "doi: !!python/object/apply:os.getcwd []\n"))


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"gone\.yaml"):
        load_site(tmp_path / "gone.yaml")


def test_site_is_a_value() -> None:
    assert Site("a", 200, 2, 50, None) == Site("a", 200, 2, 50, None)


def test_key_writes_bids_entities_and_refuses_bad_labels() -> None:
    key = RecordingKey("vu", "01", session="1", task="rest", run="02")
    assert key.entities == "sub-01_ses-1_task-rest_run-02"
    assert str(key) == "vu/sub-01_ses-1_task-rest_run-02"
    with pytest.raises(ValueError, match="letters and digits"):
        RecordingKey("vu", "0_1")
    with pytest.raises(ValueError, match="site"):
        RecordingKey("../vu", "01")


def test_recording_refuses_arrays_that_do_not_fit(make_recording) -> None:
    good: Recording = make_recording()
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"volume_onsets is \(59,\), expected \(60,\)"):
        Recording(**fields | {"volume_onsets": good.volume_onsets[:-1]})


def test_doubled_names_are_refused() -> None:
    import numpy as np

    with pytest.raises(ValueError, match="Fz"):
        Montage(("Fz", "Fz"), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels stand twice"):
        Parcellation("a", ("x", "x"), "MNI", "0")
