"""Times the alignment profile, compared with only reading the weights and with forming C explicitly.

    make bench                                       the shapes of Llama-3.2-1B and Llama-3.1-8B
    python benchmarks/realign.py --shapes 1b         one of them; see --help

The benchmark first writes checkpoints of random bfloat16 weights (5 GB for 1B, 32 GB for 8B) and removes them
afterwards. Every measurement runs in a separate process. Memory is peak RssAnon, which excludes the page cache. `cold`:
the files are not in the page cache. `warm`: they are, if they fit; then the computation is the bottleneck, and reading
the bytes through a small buffer, without keeping the weights, would take a fifth of the reported read time.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from safecomm.defenses import Adapter, profile, safe_lora, safe_merge
from safecomm.defenses.adapter import Factors
from safecomm.defenses.full_weights import LINEAR

RANK = 16
QUERY_VALUE = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Llama model."""

    name: str
    layers: int
    hidden: int
    mlp: int
    key_value: int
    vocabulary: int
    tied: bool
    shard_layers: int
    """Layers per file."""

    def layer(self) -> dict[str, tuple[int, int]]:
        """Returns the linear modules of one layer, d_out x d_in."""
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.key_value, self.hidden),
            "self_attn.v_proj": (self.key_value, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.mlp, self.hidden),
            "mlp.up_proj": (self.mlp, self.hidden),
            "mlp.down_proj": (self.hidden, self.mlp),
        }

    def modules(self, types: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """Returns all modules of the given types."""
        return {
            f"model.layers.{number}.{name}": shape
            for number in range(self.layers)
            for name, shape in self.layer().items()
            if name.rpartition(".")[2] in types
        }


SHAPES = {
    "1b": Shape("Llama-3.2-1B", 16, 2048, 8192, 512, 128_256, True, 16),
    "8b": Shape("Llama-3.1-8B", 32, 4096, 14_336, 1024, 128_256, False, 8),
}


def write_checkpoint(shape: Shape, folder: Path, seed: int) -> None:
    """Writes a sharded checkpoint; two with different seeds differ by about 1%, like a base and an aligned model."""
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    places: dict[str, str] = {}

    def write(file: str, sizes: dict[str, tuple[int, ...]]) -> None:
        # Random bits within one binade are generated 20x faster than normal numbers and time the same.
        tensors = {
            name: (torch.randint(0x3C00, 0x3C80, size, generator=random, dtype=torch.int16)).view(torch.bfloat16)
            for name, size in sizes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, file))

    for start in range(0, shape.layers, shape.shard_layers):
        layers = range(start, min(start + shape.shard_layers, shape.layers))
        sizes = {
            f"model.layers.{number}.{name}.weight": size for number in layers for name, size in shape.layer().items()
        }
        write(f"model-layers-{start:05}.safetensors", sizes)
    ends = {"model.embed_tokens.weight": (shape.vocabulary, shape.hidden)}
    write("model-ends.safetensors", ends if shape.tied else ends | {"lm_head.weight": (shape.vocabulary, shape.hidden)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def make_adapter(shape: Shape, types: tuple[str, ...], seed: int = 0) -> Adapter:
    """Returns an adapter of random factors."""
    random = torch.Generator().manual_seed(seed)

    def factors(d_out: int, d_in: int) -> Factors:
        return Factors(
            torch.randn(RANK, d_in, generator=random), 0.01 * torch.randn(d_out, RANK, generator=random), 2.0
        )

    modules = {name: factors(*size) for name, size in shape.modules(types).items()}
    return Adapter(modules, {"peft_type": "LORA", "target_modules": list(types)}, "random adapter")


def read(folders: list[Path], modules: list[str]) -> None:
    """Reads each module's weight into memory, with as many threads as the profile; the lower bound."""
    pieces = [piece for folder in folders for piece in _pieces(folder, modules)]

    def read_piece(piece: tuple[Path, int, int]) -> None:
        path, start, count = piece
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while count > 0:
                count -= len(file.read(count))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(read_piece, pieces))


def _pieces(folder: Path, modules: list[str]) -> Iterator[tuple[Path, int, int]]:
    """Yields file, offset and size of each module's weight."""
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    headers: dict[str, tuple[int, dict[str, Any]]] = {}
    for name in modules:
        file = places[f"{name}.weight"]
        if file not in headers:
            with (folder / file).open("rb") as opened:
                size = int.from_bytes(opened.read(8), "little")
                headers[file] = 8 + size, json.loads(opened.read(size))
        data, header = headers[file]
        start, end = header[f"{name}.weight"]["data_offsets"]
        yield folder / file, data + start, end - start


def dense(base: Path, aligned: Path, adapter: Path) -> None:
    """Forms every C and dW explicitly, like the published code."""
    from safecomm.defenses.weights import Difference

    alignment = Difference(base, aligned)
    for name, (A, B, scaling) in Adapter.load(adapter).modules.items():
        V = alignment.of(name)
        C = V @ V.T / V.norm()
        update = scaling * B @ A
        projected = C @ update
        torch.nn.functional.cosine_similarity(projected.flatten(), update.flatten(), dim=0)


def evict(folders: list[Path]) -> None:
    """Removes the checkpoints' files from the page cache."""
    for folder in folders:
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Runs work in a separate process; returns seconds and peak RssAnon in GiB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        seconds, peak = ours.recv()
    except EOFError:
        process.join()
        sys.exit(f"{work.__name__} ended with exit code {process.exitcode}")
    process.join()
    return seconds, peak


def _measure(pipe: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with _peak_memory() as peak:
        started = time.perf_counter()
        work(*arguments)
        seconds = time.perf_counter() - started
    pipe.send((seconds, peak[0]))


@contextmanager
def _peak_memory() -> Iterator[list[float]]:
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def profile_once(base: Path, aligned: Path, adapter: Path) -> None:
    """Loads the adapter and computes the profile."""
    profile(base, aligned, Adapter.load(adapter))


def bench_profile(shape: Shape, folders: list[Path], with_dense: bool, repeats: int, console: Console) -> None:
    """Prints the table for one shape."""
    table = Table(
        "modules", "cache", "GB read", "read s", "profile s", "ratio", "peak GiB", "dense s", "dense / profile",
        title=shape.name,
    )  # fmt: skip
    for label, types in (("all linear", LINEAR), ("q, v", QUERY_VALUE)):
        adapter = folders[0].with_name(f"adapter-{len(types)}")
        make_adapter(shape, types).save(adapter)
        modules = list(shape.modules(types))
        gigabytes = sum(2 * 2 * d_out * d_in for d_out, d_in in shape.modules(types).values()) / 1e9
        for cache in ("cold", "warm"):
            read_times, profile_times, peak = [], [], []
            for _ in range(repeats):
                for figures, work, arguments in (
                    (read_times, read, (folders, modules)),
                    (profile_times, profile_once, (*folders, adapter)),
                ):
                    evict(folders) if cache == "cold" else read(folders, modules)
                    seconds, memory = measured(work, *arguments)
                    figures.append(seconds)
                    if work is profile_once:
                        peak.append(memory)
            slow = measured(dense, *folders, adapter)[0] if with_dense and cache == "warm" else None
            floor, fastest = min(read_times), min(profile_times)
            row = f"{gigabytes:.1f}", f"{floor:.2f}", f"{fastest:.2f}", f"{fastest / floor:.2f}"
            versus = (f"{slow:.1f}", f"{slow / fastest:.0f} x") if slow else ("", "")
            table.add_row(label, cache, *row, f"{max(peak):.2f}", *versus)
    console.print(table)


def bench_settings(shape: Shape, folders: list[Path], console: Console) -> None:
    """Prints the time per additional setting once the profile exists, on q and v."""
    made = profile(*folders, make_adapter(shape, QUERY_VALUE))
    safe = make_adapter(shape, QUERY_VALUE, seed=1)
    table = Table("setting after the profile", "ms", title=f"{shape.name}, q and v")
    settings: dict[str, Callable[[], object]] = {
        "safe_merge, combine=cat, all modules": lambda: safe_merge(made, safe, weight=0.7),
        "safe_merge, combine=svd, all modules": lambda: safe_merge(made, safe, weight=0.7, combine="svd"),
        "safe_lora, all modules": lambda: safe_lora(made, quantile=1),
    }
    for label, setting in settings.items():
        setting()
        started = time.perf_counter()
        setting()
        table.add_row(label, f"{1000 * (time.perf_counter() - started):.0f}")
    console.print(table)


def main() -> None:
    """Runs the selected benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoints; default: a temporary folder")
    parser.add_argument("--repeats", type=int, default=3, help="runs per measurement; the fastest is reported")
    parser.add_argument("--no-dense", action="store_true", help="skip the dense method, which takes minutes")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{os.cpu_count()} cores, torch {torch.__version__}, rank {RANK}, best of {arguments.repeats}")
    for shape in (SHAPES[name] for name in arguments.shapes):
        scratch = Path(tempfile.mkdtemp(prefix="realign-", dir=arguments.scratch))
        try:
            folders = [scratch / "base", scratch / "aligned"]
            for seed, folder in enumerate(folders):
                write_checkpoint(shape, folder, seed)
            bench_profile(shape, folders, shape is SHAPES["1b"] and not arguments.no_dense, arguments.repeats, console)
            bench_settings(shape, folders, console)
        finally:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
