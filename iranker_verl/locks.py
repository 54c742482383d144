"""Locks of places to write, held by a process and released by its death (see :func:`iranker_verl.files.locked`)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from iranker_verl.marks import MADE_BY

_NOT_TO_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock(path: Path, folder: Path, *, wait: bool = False) -> int:
    """Return a descriptor of what is locked: the file that is still at ``path``, as another may just have removed it.

    It is ``folder`` itself where that is there and no file may be made at ``path``, as beside a mounted folder. A disk without
    locks (some network folders) is used without one, and a line on stderr reports it.

    Raise BlockingIOError where another process holds the lock and it is not to ``wait`` for it, OSError where nothing can be
    locked.
    """
    while True:
        at = path
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _sign(path, descriptor)
        except FileExistsError:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno not in _NOT_TO_WRITE or not folder.is_dir():
                raise
            at, descriptor = folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(f"{folder}: its disk has no locks; let one iranker at a time write there", file=sys.stderr)
            if _is_at(at, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sign(path: Path, descriptor: int) -> None:
    """Write into a new file that this package made it: what another made is locked, and not removed."""
    try:
        os.pwrite(descriptor, MADE_BY.encode(), 0)
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise


def unlock(path: Path, descriptor: int) -> None:
    """Release what :func:`lock` returned, and remove the file at ``path`` if this package made it."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and os.pread(descriptor, 64, 0) == MADE_BY.encode():
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
