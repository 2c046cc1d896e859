"""The pytorch backend: Hugging Face transformers on PyTorch."""
