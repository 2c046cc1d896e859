# TensorRT-LLM as NVIDIA ships it, for `runners: {tensorrt: "docker:<image>"}`. From a checkout of the
# version in use:
#   docker build -f docker/tensorrt.Dockerfile -t llenergymeasure-tensorrt .
# Tags: https://catalog.ngc.nvidia.com/orgs/nvidia/teams/tensorrt-llm/containers/release/tags
ARG TENSORRT_LLM_VERSION=1.3.0rc29
FROM nvcr.io/nvidia/tensorrt-llm/release:${TENSORRT_LLM_VERSION}

# What is installed stays as it is: an engine with other dependencies is another engine.
COPY pyproject.toml README.md LICENSE /opt/llenergymeasure/
COPY src /opt/llenergymeasure/src
RUN python3 -m pip freeze | grep '==' > /tmp/engine.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/engine.txt /opt/llenergymeasure \
    && rm /tmp/engine.txt
