class StringParseError(ValueError):
    message: str
