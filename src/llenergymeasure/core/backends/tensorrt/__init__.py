"""The tensorrt backend: TensorRT-LLM's LLM API."""
