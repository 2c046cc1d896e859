# PyTorch with CUDA, for `runners: {pytorch: "docker:<image>"}`. From a checkout of the version in use:
#   docker build -f docker/pytorch.Dockerfile -t llenergymeasure-pytorch .
# The wheels of torch bring their own CUDA libraries, so the base needs none.
# Tags: https://hub.docker.com/_/python
FROM python:3.12-slim-bookworm

# What `pytorch.torch_compile` compiles with: https://docs.pytorch.org/docs/stable/torch.compiler_faq.html
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# For precision: int8 and int4. Versions: https://pypi.org/project/bitsandbytes
ARG BITSANDBYTES_VERSION=0.50.2
COPY pyproject.toml constraints.txt README.md LICENSE /opt/llenergymeasure/
COPY src /opt/llenergymeasure/src
RUN cd /opt/llenergymeasure \
    && python3 -m pip install --no-cache-dir --constraint constraints.txt '.[pytorch]' bitsandbytes==${BITSANDBYTES_VERSION}
