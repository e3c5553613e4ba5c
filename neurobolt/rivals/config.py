"""What every rival's configuration holds: vocabulary, outputs, window and unit; a rival adds its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self, get_args

from neurobolt.channels import VU_NAMES, Unseen
from neurobolt.spelling import did_you_mean


@dataclass(frozen=True)
class RivalConfig:
    """What every rival's configuration holds; a rival adds its sizes.

    Parameters
    ----------
    ch_names : tuple of str
        Vocabulary: every channel that the model may ever be given. ``ch_index`` points into it.
    n_outputs : int
        Parcels predicted at once.
    window_s, sfreq : float
        Length of the EEG window in seconds; sampling frequency in Hz.
    eeg_unit : float
        Microvolt that count as 1 inside the model.
    remove_mean : bool
        Subtract each channel's mean over the window.
    unseen_channels : {"error", "nearest"}
        What becomes of electrodes that ``ch_names`` lacks, as in :class:`neurobolt.NeuroBOLTConfig`.

    Raises
    ------
    ValueError
        Sizes that do not fit together; all of them are listed.
    """

    model: ClassVar[str] = ""
    """Name under which recipes and saved models know the architecture."""

    ch_names: tuple[str, ...] = VU_NAMES
    n_outputs: int = 1
    window_s: float = 16.0
    sfreq: float = 200.0
    eeg_unit: float = 100.0
    remove_mean: bool = True
    unseen_channels: Unseen = "error"

    def __post_init__(self) -> None:
        for field in fields(self):  # JSON knows lists only
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        policies = get_args(Unseen)
        checks = {
            f"unseen_channels {self.unseen_channels!r} is none of {policies}": self.unseen_channels in policies,
            f"n_outputs is {self.n_outputs}": self.n_outputs >= 1,
            "ch_names is empty": len(self.ch_names) >= 1,
            "ch_names names a channel twice": len({n.upper() for n in self.ch_names}) == len(self.ch_names),
            **self.checks(),
        }
        problems = [problem for problem, holds in checks.items() if not holds]
        if problems:
            raise ValueError(f"{self.model} configuration: {'; '.join(problems)}")

    def checks(self) -> dict[str, bool]:
        """Further conditions of a rival, by the words that say what is wrong when they do not hold."""
        return {}

    @property
    def n_times(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sfreq)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; ``model`` names the architecture."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"model": self.model, **values}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; keys left out take their defaults.

        Raises
        ------
        ValueError
            Keys that do not exist, or the configuration of another model.
        """
        values = dict(content)
        name = values.pop("model", cls.model)
        if name != cls.model:
            raise ValueError(f"this is the configuration of a model {name!r}, not of {cls.model!r}")
        known = [f.name for f in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ValueError(f"unknown keys in a {cls.model} configuration: {unknown}{hint}; keys are {known}")
        return cls(**values)

    def with_options(self, **options: Any) -> Self:
        """A copy with some options replaced."""
        return replace(self, **options)
