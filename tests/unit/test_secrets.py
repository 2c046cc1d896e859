from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.secrets import redact, secret_paths

# Shapes of real keys, with letters and digits of no account.
HUB = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678"
KEYS = [
    HUB,
    "sk-" + "a1B2c3D4e5F6" * 4,
    "sk-" + "0123456789abcdef" * 2,
    "sk-proj-" + "Ab3_dE-gH1jKlMn0pQrStUvWxYz" * 4,
    "sk-ant-api03-" + "Zy9XwVu8TsRq7PoNm6LkJi5HgFe4DcBa" * 2,
    "ghp_" + "a1B2c3D4e5" * 4,
]
INNOCENT = [
    "sk-something/model",
    "org/sk-learn-flavoured-llama-3-instruct-with-a-very-long-name-v2",
    "sk-community/llama-3.1-8b-instruct-finetuned-2024-awq-marlin",
    "tokens.jsonl",
    "data/api_key_questions.jsonl",
    "hf_hub/model",
    "meta-llama/Llama-3.1-8B",
    "https://example.org/model",
    "task-0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["{}", "Bearer {}", "url?key={}&x=1", "'{}'"])
def test_what_looks_like_a_key_is_found_and_hidden(key, around):
    text = around.format(key)

    assert list(secret_paths({"model": text})) == ["model"]
    assert key not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_names_of_models_and_files_are_left_alone(text):
    assert list(secret_paths({"model": text})) == []
    assert redact(text) == text
    assert ExperimentConfig(model=text).model == text


@pytest.mark.parametrize(
    "key",
    ["token", "hf_token", "HF_TOKEN", "auth_token", "access-token", "password", "db_password",
     "passwd", "secret", "client_secret", "api_key", "apikey", "OPENAI_API_KEY", "x-api-key",
     "secret_key", "private_key", "aws_secret_access_key"],
)  # fmt: skip
def test_a_text_under_the_name_of_a_credential_is_found_whatever_it_says(key):
    assert list(secret_paths({"outer": [{key: "hunter"}]})) == [f"outer[0].{key}"]
    assert list(secret_paths({key: 1234})) == [key]


@pytest.mark.parametrize(
    "key",
    ["max_new_tokens", "min_new_tokens", "max_input_tokens", "pad_token", "eos_token", "tokenizer",
     "token_ids", "secretary", "monkey", "passwords_dataset"],
)  # fmt: skip
def test_words_that_only_contain_such_a_name_are_left_alone(key):
    assert list(secret_paths({key: "text"})) == []


@pytest.mark.parametrize("value", [["hunter"], {"a": "hunter"}, ("hunter",), 0.5])
def test_a_credential_may_be_wrapped(value):
    assert list(secret_paths({"password": value})) == ["password"]


def test_a_credential_that_is_no_field_is_not_called_a_misspelling():
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig(model="m", token="hunter")

    assert "HF_TOKEN" in str(caught.value)
    assert "unknown field" not in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", True, False, [], {}])
def test_a_credential_that_is_not_given_is_none(value):
    assert list(secret_paths({"token": value})) == []


def test_the_limit_of_output_tokens_is_not_taken_for_a_token():
    assert ExperimentConfig(model="m", max_new_tokens=8, dataset="tokens.jsonl").max_new_tokens == 8


def test_a_key_that_is_itself_a_credential_is_not_repeated():
    (path,) = secret_paths({HUB: {"token": "x"}})

    assert path == "***.token"


def test_the_path_names_the_place_and_never_the_value():
    paths = list(secret_paths({"a": {"b": ["fine", HUB]}, "c": HUB}))

    assert paths == ["a.b[1]", "c"]


def test_the_token_of_this_environment_is_hidden_whatever_it_looks_like(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain words")

    assert redact("sent plain words to the Hub") == "sent *** to the Hub"


@pytest.mark.parametrize("name", ["HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_older_names_of_the_hub_token_count_too(monkeypatch, name):
    monkeypatch.setenv(name, "opensesame")

    assert redact("opensesame") == "***"


def test_the_user_in_an_address_is_hidden_and_the_address_kept():
    assert redact("git+https://me:pw@host.org/x.git") == "git+https://***@host.org/x.git"


@given(st.text(max_size=200))
def test_hiding_twice_is_hiding_once(text):
    assert redact(redact(text)) == redact(text)


def test_a_long_text_is_searched_in_time():
    for text in ("sk-" + "a" * 500_000, "sk-" * 200_000, "sk-" + "a-" * 200_000):
        assert list(secret_paths({"model": text})) == []
