# An image for the nodes of a cluster, or for one machine, from the same locks as scripts/install.sh:
#
#   docker build --target gpu -t registry.example.com/safecomm:ray-2.60.0 .
#   docker build --target cpu -t safecomm:cpu . && docker run --rm --shm-size 2g safecomm:cpu safecomm --help
#
# A mirror of the package index: --build-arg PIP_INDEX_URL=https://mirror.example.com/simple
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS base
# Triton compiles on GPUs, DeepSpeed is built from source, and KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends build-essential wget && rm -rf /var/lib/apt/lists/*
WORKDIR /safecomm
# Only what the packages depend on: a change of the code does not install them again.
COPY pyproject.toml README.md LICENSE ./
COPY locks locks
COPY scripts scripts
COPY safecomm/__init__.py safecomm/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 UV_LINK_MODE=copy
ARG PIP_INDEX_URL

FROM base AS gpu
RUN --mount=type=cache,target=/root/.cache GPU=1 scripts/install.sh /opt/venv
COPY . .
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["safecomm", "--help"]

FROM base AS cpu
RUN --mount=type=cache,target=/root/.cache GPU=0 scripts/install.sh /opt/venv
COPY . .
CMD ["safecomm", "--help"]
