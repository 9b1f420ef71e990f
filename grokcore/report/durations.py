"""Times in words, for messages and pages."""


def duration(seconds: float) -> str:
    """Return a time in words.

    Args:
        seconds: The time in seconds.

    Returns:
        The time rounded to seconds, from one minute on to minutes, from one hour on to hours and minutes.

    Example:
        >>> duration(40), duration(720), duration(11_100)
        ('40 s', '12 min', '3 h 05 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
