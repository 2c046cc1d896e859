"""The vllm backend: vLLM's offline engine."""
