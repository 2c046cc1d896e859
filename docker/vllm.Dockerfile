# vLLM as its authors ship it, for `runners: {vllm: "docker:<image>"}`. From a checkout of the version
# in use:
#   docker build -f docker/vllm.Dockerfile -t llenergymeasure-vllm .
# Tags: https://hub.docker.com/r/vllm/vllm-openai/tags
ARG VLLM_VERSION=0.32.0
FROM vllm/vllm-openai:v${VLLM_VERSION}

# What is installed stays as it is: an engine with other dependencies is another engine.
COPY pyproject.toml README.md LICENSE /opt/llenergymeasure/
COPY src /opt/llenergymeasure/src
RUN python3 -m pip freeze | grep '==' > /tmp/engine.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/engine.txt /opt/llenergymeasure \
    && rm /tmp/engine.txt
