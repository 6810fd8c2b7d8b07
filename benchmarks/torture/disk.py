"""Between SQLite and the disk: a layer that writes down, or refuses, what passes.

It stands inside this process and under the hub's own ``sqlite3`` module: SQLite lets anybody register a VFS, and
``ctypes`` reaches the very library that the module uses. So the shipped store runs unchanged, and neither a
compiler nor a second SQLite (as with ``apsw``, which brings its own) is needed. The layer is the platform's own
VFS with three methods of its files replaced; all else goes straight through.

Source: sqlite3.h, "OS Interface Object" and "OS Interface File Virtual Methods Object".
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

OK, IOERR_WRITE, IOERR_FSYNC, FULL = 0, 10 | 3 << 8, 10 | 4 << 8, 13

_P = c.c_void_p
_OPEN = c.CFUNCTYPE(c.c_int, _P, _P, _P, c.c_int, _P)
_DELETE = c.CFUNCTYPE(c.c_int, _P, _P, c.c_int)
_CLOSE = c.CFUNCTYPE(c.c_int, _P)
_WRITE = c.CFUNCTYPE(c.c_int, _P, _P, c.c_int, c.c_int64)
_TRUNCATE = c.CFUNCTYPE(c.c_int, _P, c.c_int64)
_SYNC = c.CFUNCTYPE(c.c_int, _P, c.c_int)


class _Methods(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int), ("xClose", _P), ("xRead", _P), ("xWrite", _P), ("xTruncate", _P), ("xSync", _P),
        ("xFileSize", _P), ("xLock", _P), ("xUnlock", _P), ("xCheckReservedLock", _P), ("xFileControl", _P),
        ("xSectorSize", _P), ("xDeviceCharacteristics", _P), ("xShmMap", _P), ("xShmLock", _P), ("xShmBarrier", _P),
        ("xShmUnmap", _P), ("xFetch", _P), ("xUnfetch", _P),
    )  # fmt: skip


class _File(c.Structure):
    _fields_ = (("pMethods", c.POINTER(_Methods)),)


class _Vfs(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int), ("szOsFile", c.c_int), ("mxPathname", c.c_int), ("pNext", _P), ("zName", c.c_char_p),
        ("pAppData", _P), ("xOpen", _P), ("xDelete", _P), ("xAccess", _P), ("xFullPathname", _P), ("xDlOpen", _P),
        ("xDlError", _P), ("xDlSym", _P), ("xDlClose", _P), ("xRandomness", _P), ("xSleep", _P), ("xCurrentTime", _P),
        ("xGetLastError", _P), ("xCurrentTimeInt64", _P), ("xSetSystemCall", _P), ("xGetSystemCall", _P),
        ("xNextSystemCall", _P),
    )  # fmt: skip


class Op(NamedTuple):
    """One thing that was asked of the disk; ``at`` is an offset, or a length for ``truncate``."""

    kind: Literal["write", "truncate", "sync", "delete"]
    path: str
    at: int = 0
    data: bytes = b""


#: Sees each operation before it is done; anything but ``OK`` is done in its place: nothing reaches the disk.
Judge = Callable[[Op], int]


class _Owner(Protocol):
    judge: Judge


def _library() -> c.CDLL:
    """The SQLite that the ``sqlite3`` module runs on. Raises: RuntimeError when its functions cannot be reached."""
    import _sqlite3

    for place in (getattr(_sqlite3, "__file__", None), None):
        library = c.CDLL(place)
        with suppress(AttributeError):
            library.sqlite3_vfs_find.restype = c.POINTER(_Vfs)
            library.sqlite3_vfs_find.argtypes = [c.c_char_p]
            library.sqlite3_vfs_register.argtypes = [c.POINTER(_Vfs), c.c_int]
            library.sqlite3_vfs_unregister.argtypes = [c.POINTER(_Vfs)]
            return library
    raise RuntimeError("this Python hides its SQLite: no layer can be put under it; use another build of Python")


class _Layer:
    """The VFS while it stands; keeps alive whatever SQLite holds pointers to."""

    def __init__(self, owner: _Owner) -> None:
        self._owner = owner
        self._library = _library()
        below = self._library.sqlite3_vfs_find(None)
        self._below = below.contents
        self._paths: dict[int, str] = {}
        self._methods: dict[int, tuple[_Methods, _Methods]] = {}
        self._open_below = _OPEN(self._below.xOpen)
        self._delete_below = _DELETE(self._below.xDelete)
        self._kept: list[Any] = [_OPEN(self._open), _DELETE(self._delete), _WRITE(self._write), _SYNC(self._sync)]
        self._kept += [_TRUNCATE(self._truncate), _CLOSE(self._close)]
        self.vfs = _Vfs.from_buffer_copy(self._below)
        self.vfs.zName = b"torture"
        self.vfs.pNext = None
        self.vfs.xOpen = c.cast(self._kept[0], _P)
        self.vfs.xDelete = c.cast(self._kept[1], _P)
        self._library.sqlite3_vfs_register(c.byref(self.vfs), 1)

    def remove(self) -> None:
        self._library.sqlite3_vfs_unregister(c.byref(self.vfs))
        self._library.sqlite3_vfs_register(c.byref(self._below), 1)

    def _open(self, _: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        # The layer below must see itself: it keeps its own data behind that pointer.
        code: int = self._open_below(c.addressof(self._below), name, file, flags, out)
        made = _File.from_address(file)
        if code == OK and name and made.pMethods:
            self._paths[file] = (c.string_at(name) or b"").decode()
            made.pMethods = c.pointer(self._replaced(made.pMethods))
        return code

    def _replaced(self, below: Any) -> _Methods:
        address = c.addressof(below.contents)
        if address not in self._methods:
            theirs: _Methods = below.contents
            ours = _Methods.from_buffer_copy(theirs)
            ours.xWrite, ours.xSync = c.cast(self._kept[2], _P), c.cast(self._kept[3], _P)
            ours.xTruncate, ours.xClose = c.cast(self._kept[4], _P), c.cast(self._kept[5], _P)
            self._methods[address] = theirs, ours
            self._below_of = {c.addressof(o): t for t, o in self._methods.values()}
        return self._methods[address][1]

    def _theirs(self, file: int) -> _Methods:
        return self._below_of[c.addressof(_File.from_address(file).pMethods.contents)]

    def _close(self, file: int) -> int:
        theirs = self._theirs(file)
        self._paths.pop(file, None)
        code: int = _CLOSE(theirs.xClose)(file)
        return code

    def _write(self, file: int, data: int, length: int, at: int) -> int:
        code = self._owner.judge(Op("write", self._paths[file], at, c.string_at(data, length)))
        return code or _WRITE(self._theirs(file).xWrite)(file, data, length, at)

    def _truncate(self, file: int, size: int) -> int:
        code = self._owner.judge(Op("truncate", self._paths[file], size))
        return code or _TRUNCATE(self._theirs(file).xTruncate)(file, size)

    def _sync(self, file: int, flags: int) -> int:
        code = self._owner.judge(Op("sync", self._paths[file]))
        return code or _SYNC(self._theirs(file).xSync)(file, flags)

    def _delete(self, _: int, name: int, sync: int) -> int:
        code = self._owner.judge(Op("delete", (c.string_at(name) or b"").decode()))
        return code or self._delete_below(c.addressof(self._below), name, sync)


class Disk:
    """What becomes of writes. ``judge`` may be changed while files are open; it is called in SQLite's threads."""

    def __init__(self) -> None:
        self.judge: Judge = lambda op: OK

    def is_full(self, yes: bool = True) -> None:
        """As a disk without a free block: what would grow is refused, what was there is written over."""
        sizes: dict[str, int] = {}

        def judge(op: Op) -> int:
            if op.kind != "write":
                return OK
            size = sizes.setdefault(op.path, Path(op.path).stat().st_size)
            return FULL if op.at + len(op.data) > size else OK

        self.judge = judge if yes else lambda op: OK

    def fail_at(self, nth: int, count: int = 1, kinds: Collection[str] = ("write", "sync")) -> list[Op]:
        """The ``nth`` of ``kinds`` from now on, and ``count - 1`` after it, end in an I/O error; tells which did."""
        failed: list[Op] = []
        seen = 0

        def judge(op: Op) -> int:
            nonlocal seen
            if op.kind not in kinds:
                return OK
            seen += 1
            if not nth <= seen < nth + count:
                return OK
            failed.append(op)
            return IOERR_WRITE if op.kind == "write" else IOERR_FSYNC

        self.judge = judge
        return failed

    def recorded(self, log: list[Op]) -> None:
        """Everything that is done, in its order; appending is atomic."""

        def judge(op: Op) -> int:
            log.append(op)
            return OK

        self.judge = judge


@contextmanager
def layer() -> Iterator[Disk]:
    """Stands under every database that is opened inside; they must be closed before its end."""
    disk = Disk()
    made = _Layer(disk)
    try:
        yield disk
    finally:
        made.remove()
