"""What a soak ends with when something is wrong."""


class Difference(Exception):
    """The server, or the store, is not as the model says; the message is what an engineer needs to look into it."""
