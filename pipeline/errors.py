"""Errors that a user is expected to meet. Each is one line: what is wrong, where, what to do."""


class ReelgraphError(Exception):
    """Base of all expected errors; the command line prints them without a traceback."""

    exit_code = 2


class UsageError(ReelgraphError):
    """A command was given what it cannot make sense of."""


class WorkflowError(ReelgraphError):
    """The workflow file or one of its options is wrong."""


class InputError(ReelgraphError):
    """An input (video, image folder, list file) cannot be used."""


class ModelError(ReelgraphError):
    """A model is unknown, or its weights are missing."""


class ClusterError(ReelgraphError):
    """The cluster that was asked for cannot be had or does not fit."""


class StoppedError(ReelgraphError):
    """A run lost what it works with; the store keeps what was committed, and the same command continues."""

    exit_code = 1


class StoreError(ReelgraphError):
    """The output is not a store of ours, does not fit this workflow, or cannot be written."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""
