"""Every exception that a user can meet.

::

    XsiteError
    ├── RecipeError          a recipe or command line asks for something that does not exist
    ├── SiteError            the facts of a site are missing, wrong or contradict its files
    ├── RecordingError       one recording cannot be used; the message names its file
    │   ├── FormatError      a file is missing, truncated, or not what its name says
    │   ├── ChannelError     channels are unknown, flat, or not a number
    │   └── AlignmentError   volume markers and volumes cannot be brought together
    ├── ParcellationError    the atlas does not fit the images
    ├── StoreError           the shared-format store is damaged, mixed or full
    ├── FoldError            a split is impossible or would leak
    ├── LeakageError         the audit found test data on the training side
    ├── CheckpointError      a checkpoint is incomplete or belongs to another experiment
    ├── TrackingError        the MLflow server or registry refuses
    └── ClusterError         the Ray cluster is absent, refuses, or has no room

A message names the operation, the file and the values, and says what to do.
"""


class XsiteError(Exception):
    """Root of the tree: catch it to catch everything that this package raises on purpose."""


class RecipeError(XsiteError, ValueError):
    """A recipe or a command line asks for something that does not exist."""


class SiteError(XsiteError, ValueError):
    """The facts of a site are missing, wrong, or contradict its files."""


class RecordingError(XsiteError, ValueError):
    """One recording cannot be used."""


class FormatError(RecordingError):
    """A file is missing, truncated, or not what its name says."""


class ChannelError(RecordingError):
    """Channels are unknown, flat, or not a number."""


class AlignmentError(RecordingError):
    """Volume markers and volumes cannot be brought together."""


class ParcellationError(XsiteError, ValueError):
    """The atlas does not fit the images."""


class StoreError(XsiteError, RuntimeError):
    """The shared-format store is damaged, mixed, or full."""


class FoldError(XsiteError, ValueError):
    """A split is impossible or would leak."""


class LeakageError(XsiteError, RuntimeError):
    """The audit found what must not know the held-out recordings, and does."""


class CheckpointError(XsiteError, RuntimeError):
    """A checkpoint is incomplete or belongs to another experiment."""


class TrackingError(XsiteError, RuntimeError):
    """The MLflow server or registry refuses."""


class ClusterError(XsiteError, RuntimeError):
    """The Ray cluster is absent, refuses, or has no room."""
