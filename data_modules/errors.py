"""The one error that a user's own input can cause."""


class InputError(Exception):
    """Bad input, told in one line that names the file or the option and says the remedy.

    The command line prints it as ``error: ...`` and exits with status 1; everything else that is raised is a defect.
    """


class UsageError(InputError):
    """A wrong option or configuration value: the command line exits with status 2."""
