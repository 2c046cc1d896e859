# PyTorch with CUDA, for `runners: {pytorch: "docker:<image>"}`. From a checkout of the version in use:
#   docker build -f docker/pytorch.Dockerfile -t llenergymeasure-pytorch .
# The wheels of torch bring their own CUDA libraries, so the base needs none.
# Tags: https://hub.docker.com/_/python
FROM python:3.12-slim-bookworm

COPY pyproject.toml constraints.txt README.md LICENSE /opt/llenergymeasure/
COPY src /opt/llenergymeasure/src
RUN cd /opt/llenergymeasure \
    && python3 -m pip install --no-cache-dir --constraint constraints.txt '.[pytorch]'
