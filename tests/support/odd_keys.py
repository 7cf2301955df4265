"""Keys that misbehave."""


class Changing:
    """Its hash changes with its value."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return self.value

    def __eq__(self, other):
        return isinstance(other, Changing) and self.value == other.value


class Incomparable:
    def __init__(self, error):
        self.error = error

    def __hash__(self):
        return 7

    def __eq__(self, other):
        raise self.error


class Undecided:
    """Compares to what is neither true nor false, as arrays do."""

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise ValueError("the truth value is ambiguous")


class NotShown:
    def __hash__(self):
        raise ValueError("no hash")

    def __repr__(self):
        raise ValueError("no text")
