"""The root of every error that this package raises on purpose.

A message names the thing, the value and the remedy, on one line: the commands print it as it stands.
"""


class Dust3rError(Exception):
    """Something the user can mend: bad input, a missing part, a wrong setting."""
