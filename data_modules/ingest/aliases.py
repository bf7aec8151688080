"""Names of files that libraries in C++ can take."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alias(file: Path) -> Iterator[Path]:
    """Gives a path of the file that is UTF-8: its own or, until the end, a link in a private temporary folder.

    On Linux a name may hold any bytes, such as those of an export in Latin-1. Python keeps them as surrogates, of which
    SimpleITK and OpenCV make an error or a crash. The link's name tells nothing of the file's but its suffix.
    """
    if _is_utf8(str(file.absolute())):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="alias-") as folder:
        link = Path(folder) / f"file{file.suffix if file.suffix.isascii() else ''}"
        link.symlink_to(file.absolute())
        yield link


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
