"""Every error that `prewrite` raises on purpose.

A message names the setting or place, the value got, the rule, and the remedy. The command line catches
`PrewriteError`, prints `error: ...` and exits with 2. To add one: inherit the base and the stdlib type it refines.
"""


class PrewriteError(Exception):
    """Base of all errors of this package."""


class ConfigError(PrewriteError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(PrewriteError, ValueError):
    """A data file or row breaks a rule; the message names file, line, field and rule."""


class MissingDependencyError(PrewriteError, ImportError):
    """An optional package is not installed; the message holds the pip line."""


class ModelNotFoundError(PrewriteError, FileNotFoundError):
    """A model is neither on disk, nor in an installed package, nor reachable on the hub."""


class TaskModelError(PrewriteError, RuntimeError):
    """The task model could not answer: the machinery's fault, so never a score."""


class CapabilityError(TaskModelError):
    """A backend was asked for something that it cannot do, such as scoring given labels."""


class BudgetExceededError(PrewriteError, RuntimeError):
    """The next task-model call would exceed the budget that the user set; nothing was sent."""


class StorageError(PrewriteError, OSError):
    """A file or folder cannot be made or written: no space, no permission, or something else in its place."""


class RunFolderError(PrewriteError, OSError):
    """A run folder exists, is missing, or does not hold what was asked for."""
