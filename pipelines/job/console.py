"""Terminal output for people: lines, durations, sizes, names."""

from collections.abc import Sequence


def say(text: str) -> None:
    """Print a line on standard output without buffering."""
    print(text, flush=True)


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: 3:07:21, 7:21."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def size(num_bytes: float) -> str:
    """Format a number of bytes: 3.2 MB, 4.48 GB."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.2f} GB"


def some(names: Sequence[str], most: int = 10) -> str:
    """Format the first ``most`` names: a, b, c and 7 more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
