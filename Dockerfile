# The GPU stack on Ubuntu 24.04, whose own Python is 3.12. Written by the documentation of its parts: nobody has built it yet.
#   docker build -t iranker .
#   docker run --gpus all --ipc=host -v /shared:/shared iranker iranker train /opt/iranker/recipes/iranker_3b …
# vLLM and Triton compile kernels when they run, hence the image with a compiler. Weights travel through /dev/shm, hence --ipc=host.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      build-essential make python3.12 python3.12-dev python3.12-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/iranker
COPY . .
# a wheel of flash-attn: --build-arg FLASH_ATTN=…
ARG FLASH_ATTN=
RUN PIP_NO_CACHE_DIR=1 PYTHON=python3.12 FLASH_ATTN="$FLASH_ATTN" requirements/install.sh .venv gpu
ENV PATH=/opt/iranker/.venv/bin:$PATH
RUN useradd --create-home iranker
USER iranker
WORKDIR /home/iranker
CMD ["iranker", "doctor"]
