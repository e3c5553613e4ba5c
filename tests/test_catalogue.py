"""The heterogeneity catalogue of real data sets (design document sites.md, section 5): every item has its tests.

``COVERED`` says which test meets which fault; what no room of the platform owns is in ``test_heterogeneity.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HERE = "test_heterogeneity"

COVERED: dict[int, dict[str, str]] = {
    1: {
        "task labels differ": "test_pairing::test_fault_1_task_labels_differ",
        "a run entity on one side only": (
            "test_pairing::test_fault_1_run_entity_on_one_side_only_when_there_is_one_of_each"
        ),
        "run-00 and run-006": "test_pairing::test_fault_1_a_misnamed_run_is_paired_by_the_facts_of_the_site",
        "two roots": "test_pairing::test_fault_1_task_and_session_differ_across_two_roots",
        "no suffix, time stamps": "test_pairing::test_fault_1_names_outside_bids_are_listed_by_the_adapter",
    },
    2: {
        "look-alikes": "test_pairing_published::test_fault_2_lookalikes_are_never_paired",
        "the same names": "test_pairing_published::test_fault_2_lookalikes_with_the_same_names_need_evidence_too",
        "EEG only, BOLD only": "test_bids::test_unpaired_files_are_left_out_with_a_reason",
        "outside the scanner": "test_pairing::test_fault_2_contrary_evidence_refuses_though_markers_are_there",
    },
    3: {
        "EEG in func/": "test_pairing::test_fault_3_eeg_that_only_the_sites_own_reader_knows",
        "EEG in derivatives, rejected/": (
            "test_pairing::test_fault_3_eeg_elsewhere_is_asked_for_and_what_was_rejected_is_not_data"
        ),
    },
    4: {"._ twins, pointers": "test_pairing::test_fault_4_hidden_twins_are_nothing_and_pointers_have_a_reason"},
    5: {
        ".nii and .nii.gz": "test_pairing::test_fault_5_nii_and_nii_gz_are_one_run_and_either_serves",
        "a header without its data": "test_pairing::test_fault_5_a_header_whose_data_are_not_shipped",
        ".set without .fdt": "test_bad_input_data::test_eeglab_data_file",
        "datfile names another file": f"{HERE}::test_item_5_a_set_file_that_names_another_data_file",
    },
    6: {
        "by inheritance": "test_pairing::test_fault_6_sidecars_by_inheritance_the_nearest_wins",
        "contradictory": "test_bids::test_sidecars_are_inherited_and_contradictions_are_errors",
        "real ones": "test_pairing_published::test_fault_6_real_inheritance",
        "an inherited one is no run": f"{HERE}::test_item_6_an_inherited_sidecar_is_not_a_run_without_its_image",
    },
    7: {
        "encodings of tables": "test_files::test_fault_7_and_9_tables_are_read_and_the_fault_names_the_file",
        "encodings of JSON": "test_files::test_fault_7_and_8_json_is_read_and_the_fault_names_the_file",
    },
    8: {
        "invalid JSON": "test_files::test_fault_7_and_8_json_is_read_and_the_fault_names_the_file",
        "real ones": "test_files::test_fault_7_to_10_real_sidecars",
    },
    9: {
        "blanks, quotes, blank lines": "test_files::test_fault_7_and_9_tables_are_read_and_the_fault_names_the_file",
        "no header": "test_files::test_fault_9_and_27_tables_without_header",
    },
    10: {
        "sentinels": "test_files::test_fault_10_sentinels_are_not_known",
        "zero": "test_files::test_fault_10_zero_is_unknown_only_where_it_cannot_be",
    },
    11: {
        "case, old names, blanks": "test_montage::test_item_11_names_of_real_sites",
        "duplicates": "test_montage::test_item_11_duplicates_after_normalising_are_named",
        "no names": "test_montage::test_item_11_no_names_at_all",
        "E1 to E32": "test_spline::test_item_11_an_egi_net_joins_a_canonical_montage",
    },
    12: {
        "typed MISC": "test_channel_types::test_item_12_ecg_typed_misc_and_loops_typed_misc",
        "everything typed EEG": "test_channel_types::test_item_12_everything_typed_eeg",
        "counts and channels that the file has not": f"{HERE}::test_item_12_the_file_decides_which_channels_there_are",
    },
    13: {
        "ECG in the middle, two of them, behaviour": (
            "test_channel_types::test_item_13_ecg_in_the_middle_two_of_them_and_behaviour"
        ),
        "no ECG": "test_cleaning::test_without_ecg_the_eeg_tells_the_beats",
    },
    14: {
        "bipolar": "test_montage::test_item_14_bipolar_pairs_are_refused_by_name",
        "missing electrodes": "test_spline::test_item_14_spline_fills_missing_channels_and_masks_far_ones",
        "references": "test_spline::test_item_14_reference_of_the_recording_does_not_matter",
    },
    15: {
        "excluded channels": "test_channel_types::test_item_15_excluded_channels_removed_from_the_matrix_need_names",
        "rows that are not electrodes": "test_odd_sites::test_ds002739_rows_are_named_after_electrodes_not_rows",
        "spellings of microvolt": f"{HERE}::test_item_15_spellings_of_units_in_headers",
        "volt or microvolt by version": (
            "test_odd_sites::test_ds000116_volt_after_the_gain_and_microvolt_are_told_by_the_file_s_name"
        ),
    },
    16: {
        "units, axes": "test_positions::test_item_16_unit_axes_and_origin_are_recognised",
        "none": "test_positions::test_item_16_no_positions_at_all",
        "origin, no row": "test_positions::test_item_16_electrodes_at_the_origin_and_without_a_row",
        "impedance column": "test_positions::test_item_16_table_beside_the_eeg",
    },
    17: {"names and types of volume markers": f"{HERE}::test_item_17_every_spelling_of_a_volume_marker_is_found"},
    18: {
        "a heartbeat of the clock": (
            "test_align_damage::test_a_heartbeat_is_flagged_by_artifact_and_distrusted_with_a_protocol"
        ),
        "a relay with the TR": "test_site_faults::test_ds002725_relay_that_keeps_the_tr_is_not_taken_for_the_scanner",
        "slice triggers": "test_align::test_slice_triggers_are_recognised_by_their_spacing",
        "another train of the same pace": (
            "test_align::test_another_train_at_the_same_pace_casts_doubt_unless_the_artifact_decides"
        ),
    },
    19: {
        "one too many": "test_align::test_eeg_that_ends_within_the_extra_volume_shows_the_end",
        "four missing": "test_site_faults::test_ds002725_corrected_eeg_with_four_triggers_too_few_is_refused",
        "a long hole": (
            "test_align::test_several_missing_markers_and_long_holes_are_filled_where_both_sides_keep_one_clock"
        ),
        "absent": "test_prepare::test_without_markers_only_an_explicit_policy_places_the_scan",
        "discarded volumes": "test_align::test_known_dummies_are_dropped",
        "any of them at once": "test_align_damage::test_never_a_wrong_ok_in_a_thousand_damaged_recordings",
    },
    20: {
        "EEG before and after the scan": (
            "test_scan_evidence::test_first_and_last_volume_are_found_within_the_resolution"
        ),
        "EEG ends early": "test_align::test_eeg_that_stops_before_the_scan_loses_its_last_volumes",
        "cut to the first task marker": f"{HERE}::test_item_20_eeg_cut_after_the_scan_had_begun",
    },
    21: {
        "samples of another rate, ms": "test_markers::test_onsets_in_samples_of_another_rate_or_in_ms",
        "first task marker, clipped": f"{HERE}::test_item_21_onsets_from_the_first_task_marker_clipped_to_zero",
        "1-based samples": f"{HERE}::test_item_21_samples_that_count_from_one",
        "the offset changes between sessions": f"{HERE}::test_item_21_each_session_has_its_own_offset",
        "the same list for EEG and BOLD": (
            "test_site_faults::test_ds002725_relay_that_keeps_the_tr_is_not_taken_for_the_scanner"
        ),
    },
    22: {
        "2.0999999, 2000 sec": "test_bold_readers::test_item_22_repetition_time",
        "slice timing": "test_bold_readers::test_item_22_slice_timing",
        "real ones": "test_bold_readers::test_item_22_and_25_slice_timing_of_real_sidecars",
    },
    23: {
        "rates": "test_eeg::test_sines_keep_time_phase_and_size_at_every_rate",
        "float32 and int16": "test_phantom_like::test_formats_read_back",
        "not whole frames": "test_phantom_like::test_damaged_files_are_never_read",
        "twice the size": "test_odd_sites::test_ds005127_recording_with_twice_the_bytes_is_left_out",
        "one sample more than stated": f"{HERE}::test_item_23_one_sample_more_than_the_sidecar_says",
    },
    24: {
        "gradient artifact": "test_gradient::test_every_volume_is_corrected_and_everything_is_usable",
        "several states side by side": f"{HERE}::test_item_24_several_states_of_one_run_side_by_side",
        "raw that was corrected": f"{HERE}::test_item_24_raw_that_was_corrected_is_never_ok",
        "corrected that was not": f"{HERE}::test_item_24_the_artifact_in_corrected_eeg_excludes",
    },
    25: {
        "half a brain": "test_parcels::test_item_25_half_a_brain_loses_the_parcels_of_the_other_half",
        "from store to report": "test_half_coverage::test_a_held_out_half_brain_is_scored_by_the_parcels_that_it_has",
        "multiband, gaps between slices": "test_bold_readers::test_item_22_and_25_slice_timing_of_real_sidecars",
    },
    26: {
        "n/a in the first row": "test_confounds::test_item_26_missing_values_in_the_first_row",
        "leading tab, translations first": (
            "test_confounds::test_item_26_six_columns_with_a_leading_tab_and_translations_first"
        ),
        "inside events": "test_confounds::test_item_26_motion_inside_events",
        "called fmriprep": "test_confounds::test_item_26_a_derivative_called_fmriprep_that_is_not",
    },
    27: {
        "two values a line": "test_odd_sites::test_ds004478_signal_follows_the_flicker_of_the_scan",
        "columns instead": (
            "test_odd_sites::test_a_table_of_time_and_signal_in_columns_is_not_taken_for_the_site_s_layout"
        ),
        "without a header": "test_files::test_fault_9_and_27_tables_without_header",
    },
}


def test_every_item_of_the_catalogue_is_covered() -> None:
    assert sorted(COVERED) == list(range(1, 28))
    assert all(COVERED.values())


def test_the_catalogue_has_no_item_beyond(shared_data: Callable[[str], Path]) -> None:
    section = shared_data("design/sites.md").read_text(encoding="utf-8").partition("\n## 5.")[2].partition("\n## 6.")[0]
    assert [int(number) for number in re.findall(r"(?m)^(\d+)\. ", section)] == sorted(COVERED)


@pytest.mark.parametrize("item", COVERED)
def test_the_tests_of_an_item_exist(item: int) -> None:
    for fault, where in COVERED[item].items():
        module, _, name = where.partition("::")
        tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"item {item}, {fault}: no {where}"
        asserting = (ast.Assert, ast.With)  # an assert, or "with pytest.raises"
        body = [node for node in ast.walk(functions[name]) if isinstance(node, (*asserting, ast.Call))]
        assert body, f"{where} asserts nothing"
