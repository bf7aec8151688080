"""Files that are written in one step: a reader sees the old one or the new one, never a part."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def name_beside(file: Path) -> Path:
    """A hidden name in the folder of ``file`` that no other process has, here or on another machine."""
    return file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes ``file`` when the block ends, and is removed where it fails.

    Raises:
        OSError: What was written cannot be renamed; ``file`` is then as it was.
    """
    temporary = name_beside(file)
    try:
        yield temporary
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
