"""The most memory that a process has held."""

import resource
import sys


def peak_bytes() -> int:
    """Returns the most that this process has held of its GPU, or of the machine's memory where it has none.

    On a GPU that is what torch's allocator held at most, and what the driver and other libraries hold now.
    """
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
