"""The configuration of a NeuroBOLT model: every size and every switch, with three presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from neurobolt.channels import VU_NAMES, Unseen, spatial_rows
from neurobolt.spelling import did_you_mean

Preset = Literal["paper", "released", "small"]
PRESETS: tuple[str, ...] = get_args(Preset)
SpectralAttention = Literal["efficient", "linformer"]


@dataclass(frozen=True)
class NeuroBOLTConfig:
    """Sizes and switches of one model; the defaults are the preset ``paper``.

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
        Subtract each channel's mean over the window (the paper does not, the released code does).
    dim : int
        Width of both branches; equals ``conv_channels`` x samples left of a patch after the strided convolution.
    patch_size, conv_channels, conv_groups, conv_kernel, conv_stride : int
        Temporal encoder of the spatiotemporal branch: samples per patch, and its convolutions.
    depth, n_heads : int
        Blocks and heads of the spatiotemporal branch.
    scales_s : tuple of float
        STFT windows of the spectral branch, in seconds.
    n_frames : int
        Time steps per channel to which every scale is brought.
    spectral_depth, spectral_heads : int
        Layers and heads of the spectral branch.
    spectral_attention : {"efficient", "linformer"}
        Factorised softmax as in the released code, or the low-rank projection of the paper's equation.
    linformer_rank : int
        Columns of the low-rank projection.
    spectral_cls : bool
        A cls token in the spectral branch (in the paper's text, not in its code).
    mlp_ratio : int
        Hidden width of the feed-forward parts over ``dim``.
    gelu_head : bool
        GELU before the head; off for checkpoints released before October 2025.
    dropout, spectral_dropout, drop_path : float
        Tokens, projections and feed-forward; output of the spectral attention; stochastic depth of the last block.
    layer_scale : float
        Initial value of the residual scales.
    init_std : float
        Spread of the truncated normal that linear layers start from; narrow models need more than the published 0.02.
    head_scale : float
        Factor on the head's initial weights: the output starts near 0, the mean of the target.
    unseen_channels : {"error", "nearest"}
        What becomes of channels that ``ch_names`` lacks: refused, or named after the nearest electrode that it has.
    decay_temporal_embedding : bool
        Layer-wise decay treats the temporal embedding like the patch encoder; the released code leaves it at 1.

    Raises
    ------
    ValueError
        Sizes that do not fit together, or channel names without a row in LaBraM's table.
    """

    ch_names: tuple[str, ...] = VU_NAMES
    n_outputs: int = 1
    window_s: float = 16.0
    sfreq: float = 200.0
    eeg_unit: float = 100.0
    remove_mean: bool = True
    dim: int = 200
    patch_size: int = 200
    conv_channels: int = 8
    conv_groups: int = 4
    conv_kernel: int = 15
    conv_stride: int = 8
    depth: int = 12
    n_heads: int = 10
    scales_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    n_frames: int = 32
    spectral_depth: int = 4
    spectral_heads: int = 8
    spectral_attention: SpectralAttention = "efficient"
    linformer_rank: int = 64
    spectral_cls: bool = False
    mlp_ratio: int = 4
    gelu_head: bool = True
    dropout: float = 0.0
    spectral_dropout: float = 0.0
    drop_path: float = 0.1
    layer_scale: float = 0.1
    init_std: float = 0.02
    head_scale: float = 0.001
    unseen_channels: Unseen = "error"
    decay_temporal_embedding: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_names", tuple(self.ch_names))
        object.__setattr__(self, "scales_s", tuple(self.scales_s))
        problems = self._misfits()
        if problems:
            raise ValueError("NeuroBOLT configuration: " + "; ".join(problems))
        spatial_rows(self.ch_names)  # names every unknown channel

    def _misfits(self) -> list[str]:
        left = self.samples_per_patch
        windows = {s: s * self.sfreq for s in self.scales_s}
        checks = {
            f"n_outputs is {self.n_outputs}": self.n_outputs >= 1,
            "ch_names is empty": len(self.ch_names) >= 1,
            "ch_names names a channel twice": len({n.upper() for n in self.ch_names}) == len(self.ch_names),
            f"a window of {self.n_times} samples is not made of patches of {self.patch_size}": self.n_times
            % self.patch_size
            == 0,
            f"dim {self.dim} is not conv_channels {self.conv_channels} x {left} samples left of a patch": self.dim
            == self.conv_channels * left,
            f"dim {self.dim} cannot be divided among {self.n_heads} heads": self.dim % self.n_heads == 0,
            f"dim {self.dim} cannot be divided among {self.spectral_heads} spectral heads": self.dim
            % self.spectral_heads
            == 0,
            f"dim {self.dim} is odd": self.dim % 2 == 0,
            f"conv_channels {self.conv_channels} cannot be divided into {self.conv_groups} groups": self.conv_channels
            % self.conv_groups
            == 0,
            f"scales {self.scales_s} s do not divide a window of {self.window_s} s into whole samples": all(
                n == int(n) and self.n_times % int(n) == 0 for n in windows.values()
            ),
            f"spectral_attention {self.spectral_attention!r} is none of {get_args(SpectralAttention)}": (
                self.spectral_attention in get_args(SpectralAttention)
            ),
            f"unseen_channels {self.unseen_channels!r} is none of {get_args(Unseen)}": self.unseen_channels
            in get_args(Unseen),
        }
        return [problem for problem, holds in checks.items() if not holds]

    @property
    def n_times(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sfreq)

    @property
    def n_patches(self) -> int:
        """Patches of one channel."""
        return self.n_times // self.patch_size

    @property
    def samples_per_patch(self) -> int:
        """Samples of a patch after the strided convolution."""
        return (self.patch_size + 2 * (self.conv_kernel // 2) - self.conv_kernel) // self.conv_stride + 1

    @classmethod
    def preset(
        cls, name: str, *, ch_names: Sequence[str] = VU_NAMES, n_outputs: int = 1, **options: Any
    ) -> NeuroBOLTConfig:
        """One of the presets, with single options replaced.

        Examples
        --------
        >>> NeuroBOLTConfig.preset("released").dropout
        0.1
        """
        if name not in _OPTIONS:
            raise ValueError(f"unknown preset {name!r}{did_you_mean(name, PRESETS)}; presets are {', '.join(PRESETS)}")
        return cls.from_dict({**_OPTIONS[name], **options, "ch_names": ch_names, "n_outputs": n_outputs})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> NeuroBOLTConfig:
        """Inverse of :meth:`to_dict`; keys left out take their defaults.

        Raises
        ------
        ValueError
            Keys that do not exist.
        """
        known = [f.name for f in fields(cls)]
        unknown = [key for key in content if key not in known]
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ValueError(f"unknown keys in a NeuroBOLT configuration: {unknown}{hint}; keys are {known}")
        return cls(**content)

    def with_options(self, **options: Any) -> NeuroBOLTConfig:
        """A copy with some options replaced."""
        return replace(self, **options)


_OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": {"dropout": 0.1, "spectral_dropout": 0.2, "decay_temporal_embedding": False},
    # Sized for one CPU core (20 channels, 16 outputs): about 110 training windows/s on a busy machine, where "paper"
    # makes 1.4 (benchmarks/step.py). Chosen on the phantom preset "easy", one held-out site, one seed (1,819
    # training windows, AdamW, lr 2e-3, batch 16); mean R at that site against windows seen, oracle 0.82: width 40 with
    # four scales and two blocks 0.34 after 8,000; width 64 with two scales and one block 0.41 after 8,000; width 96,
    # this one, 0.45 after 6,000 and 0.51 after 12,000 (all with a GELU head). Log magnitudes were worse.
    "small": {
        "gelu_head": False,  # with GELU some starts learn nothing for three epochs, and all learn more slowly
        "dim": 96,
        "conv_channels": 6,
        "conv_groups": 3,
        "mlp_ratio": 2,
        "depth": 1,
        "n_heads": 2,
        "patch_size": 800,
        "conv_stride": 50,
        "conv_kernel": 51,
        "scales_s": (1.0, 2.0),
        "n_frames": 8,
        "spectral_depth": 2,
        "spectral_heads": 2,
        "dropout": 0.2,
        "spectral_dropout": 0.1,
        "drop_path": 0.0,
        "layer_scale": 1.0,
        "init_std": 0.1,
        "head_scale": 0.02,
    },
}
