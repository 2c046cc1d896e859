from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.secrets import redact, redacted, secret_paths
from tests.support.credentials import KINDS, SHAPED, forms

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


# The texts of messages, logs and addresses that hold no credential.
NO_CREDENTIALS = """
https://github.com/org/repo@v1.0
git+https://github.com/org/repo.git@0123456789abcdef0123456789abcdef01234567
ssh://git@github.com/org/repo
git@github.com:org/repo.git
me@example.org
http://[::1]:8000/v1
http://localhost:8000/path@v1
localhost:5000/team/image:tag
nvcr.io/nvidia/vllm:24.05-py3@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
registry.example.org:5000/team/image:1.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c
pad_token: <|endoftext|>
eos_token=<|im_end|>
bos_token='<s>', pad_token='[PAD]', unk_token="<unk>"
max_new_tokens: 128, max_new_tokens=128
hf_token=None, token=None, api_key=[], use_auth_token=False
HF_TOKEN=$HF_TOKEN
EOS token = 151645 '<|im_end|>', token: 151643
throughput: 1234.5 tokens/s, 12.5 tok/s
da39a3ee5e6b4b0d3255bfef95601890afd80709
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
VGhpcyBpcyBub3RoaW5nIGJ1dCB0ZXh0IGluIGJhc2U2NA==
550e8400-e29b-41d4-a716-446655440000
Bearer of good news for internationalization
Basic understanding of misunderstandings
sort_key=alphabetical_order, cache_key=0123456789abcdef, primary_key=identifier
the secret sauce is patience; secretary: administrative-assistant-of-2024
token: looks like a credential; keep it in the environment (HF_TOKEN)
api_key: looks like a credential; keep it in the environment (HF_TOKEN)
No such option: --api-key (Possible options: --api, --key)
No such option: --token Did you mean --tokens?
{'token': ' hello', 'logprob': -0.1}
["token", "attention_mask", "input_ids"]
authorization: required for this model
llenergymeasure 2.1 (editable, file:///home/user/llenergymeasure)
torch 2.5.1 (https://download.pytorch.org/whl/cu124/torch-2.5.1%2Bcu124-cp311-cp311-linux_x86_64.whl)
/home/user/.cache/huggingface/token
asian-languages-model
gl-agent-model-2024-with-many-words
AKIA is a prefix of four letters, ghp_short is none
-----BEGIN CERTIFICATE-----
""".strip().splitlines()


@pytest.mark.parametrize("text", NO_CREDENTIALS)
def test_what_is_no_credential_is_left_alone(text):
    assert redact(text) == text
    assert list(secret_paths({"model": text})) == []


@pytest.mark.parametrize("one", SHAPED, ids=lambda one: one.kind)
@pytest.mark.parametrize(
    "around", ["{}", "x {} y", "'{}'", '{{"a": "{}"}}', "/data/{}/m", "/data/my-{}.jsonl", "{}\n"]
)
def test_every_kind_is_known_by_its_shape_wherever_it_stands(one, around):
    text = around.format(one.text)

    assert one.secret not in redact(text)
    assert list(secret_paths({"model": text})) == ["model"]
    assert one.secret not in str(redacted([{"a": (text, 1)}, None]))


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.kind)
def test_what_a_variable_of_the_environment_holds_is_known_in_every_spelling(one, monkeypatch):
    monkeypatch.setenv(one.variable, one.secret)

    for form in forms(one.secret):
        assert redact(f"a {form} b/{form}/c").count("***") == 2, form
        assert list(secret_paths({"model": f"x/{form}"})) == ["model"]


def test_every_line_of_a_variable_is_known_by_itself(monkeypatch):
    monkeypatch.setenv("SSH_PRIVATE_KEY", "first line of it\nsecond line of it\n")

    assert redact("x second line of it y") == "x *** y"


@pytest.mark.parametrize(
    ("name", "value"),
    [("X_TOKEN", "1234567"), ("X_TOKEN", ""), ("TOKENIZERS", "parallelism"),
     ("HF_TOKEN_PATH", "/home/user/token"), ("GPG_KEY", "0123456789ABCDEF"),
     ("MAX_TOKENS", "1000000000")],
)  # fmt: skip
def test_variables_of_other_names_and_short_values_are_none(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert redact(f"a {value} b") == f"a {value} b"


def test_a_value_in_another_encoding_is_known_too(monkeypatch):
    value = os.fsdecode(b"caf\xe9-opensesame")
    monkeypatch.setenv("X_TOKEN", value)

    assert redact(f"a {value} caf%E9-opensesame b") == "a *** *** b"


def test_a_value_that_may_be_a_word_is_that_word_only(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "postgres")

    assert redact("postgres postgresql") == "*** postgresql"


def test_a_variable_that_is_set_later_counts_as_well(monkeypatch):
    for value in ("first-of-all", "second-of-all"):
        monkeypatch.setenv("X_API_KEY", value)
        assert redact(value) == "***"
    monkeypatch.delenv("X_API_KEY")
    monkeypatch.setenv("Y_API_KEY", "third-of-all")
    assert redact("second-of-all third-of-all") == "second-of-all ***"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("--api-key abc123de x", "--api-key *** x"),
        ("--hf-token=abcdefgh", "--hf-token=***"),
        ("GITHUB_TOKEN=abcdefgh", "GITHUB_TOKEN=***"),
        ("password = hunter2", "password = ***"),
        ("aws_secret_access_key = wJalrXUtn/K7MDENG", "aws_secret_access_key = ***"),
        ('{"api_key": "plain words"}', '{"api_key": "***"}'),
        ('{\\"api_key\\": \\"plain\\"}', '{\\"api_key\\": \\"***\\"}'),
        ("{'SecretAccessKey': 'wJalr'}", "{'SecretAccessKey': '***'}"),
        ("Namespace(api_key='abc def', n=1)", "Namespace(api_key='***', n=1)"),
        ("https://h/x?token=abcdefgh&n=1", "https://h/x?token=***&n=1"),
        ("https://h/x?n=1&X-Amz-Signature=abcdefgh", "https://h/x?n=1&X-Amz-Signature=***"),
        ("authorization: Basic bWU6cHc=", "authorization: Basic ***"),
        ("'Authorization': 'Bearer abcd'", "'Authorization': 'Bearer ***'"),
        ("x-api-key: a1b2c3d4", "x-api-key: ***"),
        ("https://me:pw@host.org/x", "https://***@host.org/x"),
        ("https://me:p@ss@host.org/x@v1", "https://***@host.org/x@v1"),
        ("https://me:p/ss@host.org/x", "https://***@host.org/x"),
        ("https://token@host.org/x", "https://***@host.org/x"),
        ("docker:me:p@ss@host.org/image:1", "***@host.org/image:1"),
        ("me:pw@localhost:5000/image", "***@localhost:5000/image"),
    ],
)
def test_what_is_given_under_a_name_or_in_an_address_is_hidden_and_the_rest_kept(text, hidden):
    assert redact(text) == redact(hidden) == hidden


def test_names_and_structure_of_data_stay():
    data = {"a": [HUB, 1, None, {"b": f"x {HUB}"}], HUB: 0.5, "c": (True,)}

    assert redacted(data) == {"a": ["***", 1, None, {"b": "x ***"}], "***": 0.5, "c": [True]}


def test_data_without_a_credential_are_not_copied():
    data = {"figures": [{"mean": 1.0}], "name": "sizes", "model": HUB}

    clean = redacted(data)
    assert clean["model"] == "***"
    assert clean["figures"] is data["figures"]


PIECES = (
    *("a", " ", "\n", "\\", "'", "sk-", "sk-a-", "sk-ant-", "hf_A1", "ghp_", "glrt-", "AKIA"),
    *(
        "://",
        "://a:",
        "://a@",
        "://a:b",
        "a:",
        "a:b@",
        "@",
        "a@localhost/",
        "x:@a.",
        "eyJ",
        "eyJa.",
    ),
    *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "Bearer ", "sig=", "?sig=", "xoxb-"),
    *("token=", "password-", "secret_", "--token ", '"password": "', "Authorization: Basic "),
)
EVERYTHING = " token=x sk- ghp_ :// @ akia eyj ?sig= bearer authorization: private key"


@pytest.mark.parametrize("length", [10_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("tail", ["", EVERYTHING])
def test_time_grows_with_a_line_and_no_faster(length, tail):
    redact(EVERYTHING)
    for piece in PIECES:
        text = piece * (length // len(piece)) + tail
        begun_s = time.process_time()
        redact(text)
        assert time.process_time() - begun_s < 0.5 + 4e-6 * length, piece


def test_a_line_of_a_megabyte_takes_less_than_a_second():
    for line in ("a b c 0.1 ", "tokens/s: 12.5, ", "QmFzZTY0IG9mIGE"):
        begun_s = time.process_time()
        redact(line * (1_000_000 // len(line)))
        assert time.process_time() - begun_s < 1, line
