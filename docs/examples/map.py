"""Reads a file of numbers as an array without copying it: python3 map.py /srv/cache/models/w.bin

The array is the region's own pages, and stays what it is while others write to the file."""
import ctypes
import os
import sys

import numpy

library = ctypes.CDLL(os.environ.get("LIBPKRAMFS", "libpkramfs.so.0"), use_errno=True)
library.pkramfs_map.restype = ctypes.c_void_p
library.pkramfs_map.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_size_t,
                                ctypes.POINTER(ctypes.c_int)]
library.pkramfs_length.restype = ctypes.c_size_t
library.pkramfs_length.argtypes = [ctypes.c_void_p]
library.pkramfs_unmap.argtypes = [ctypes.c_void_p]
library.pkramfs_why.restype = ctypes.c_char_p
MAP_FAILED = ctypes.c_void_p(-1).value


class Mapped:
    """A file as an array, for as long as this lives."""

    def __init__(self, path, dtype=numpy.uint8):
        how = ctypes.c_int()
        fd = os.open(path, os.O_RDONLY)
        try:
            self.address = library.pkramfs_map(fd, 0, 0, ctypes.byref(how))
            if self.address == MAP_FAILED:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        finally:
            os.close(fd)
        self.own_pages = how.value == 1
        self.why = library.pkramfs_why().decode()
        length = library.pkramfs_length(self.address)
        self.array = numpy.frombuffer((ctypes.c_char * length).from_address(self.address), dtype)
        self.array.flags.writeable = False

    def close(self):
        self.array = None
        library.pkramfs_unmap(self.address)


if __name__ == "__main__":
    mapped = Mapped(sys.argv[1])
    print(f"{int(mapped.array.sum(dtype=numpy.uint64))},",
          "the region's own pages" if mapped.own_pages else f"ordinary: {mapped.why}")
    mapped.close()
