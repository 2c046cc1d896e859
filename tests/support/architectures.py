"""Small configurations of the families that the package counts, as ``config.json`` holds them."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 128,
}
GPT: dict[str, Any] = {
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "vocab_size": 128,
    "n_positions": 32,
}
LATENT: dict[str, Any] = {
    **SMALL,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_group": 2,
    "topk_group": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**SMALL},
    "llama with biases": {**SMALL, "attention_bias": True, "mlp_bias": True},
    "llama tied": {**SMALL, "tie_word_embeddings": True},
    "mistral with wide heads": {**SMALL, "head_dim": 32},
    "qwen2": {**SMALL},
    "qwen3": {**SMALL, "head_dim": 32},
    "phi3": {**SMALL, "pad_token_id": 0},
    "gemma": {**SMALL, "head_dim": 32},
    "gemma2": {**SMALL, "head_dim": 32},
    "starcoder2": {**SMALL, "use_bias": True},
    "olmo2": {**SMALL},
    "gpt2": GPT,
    "gpt_bigcode": {**GPT, "multi_query": True},
    "gpt_neox": {**SMALL, "num_key_value_heads": None},
    "phi": {**SMALL, "num_key_value_heads": 4},
    "opt": {
        **SMALL,
        "num_key_value_heads": None,
        "word_embed_proj_dim": 64,
        "ffn_dim": 96,
        "max_position_embeddings": 32,
    },
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 128},
    "falcon": {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 128,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
    },
    "mixtral": {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **SMALL,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 2,
    },
    "qwen3_moe": {
        **SMALL,
        "head_dim": 16,
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [0],
    },
    "deepseek_v2": {**LATENT, "n_shared_experts": 2, "q_lora_rank": None},
    "deepseek_v3": {**LATENT, "n_shared_experts": 1, "q_lora_rank": 24},
}
