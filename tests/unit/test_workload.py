"""Prompts as an engine gets them, and the batches that warm it up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Batch, Request
from llenergymeasure.core.workload import build_requests, warmup_batches
from llenergymeasure.domain.prompts import Message, Prompt, Role
from llenergymeasure.exceptions import BackendError, ConfigError

IDS = range(100, 1100)


class Letters:
    """A tokenizer that gives each character its own token."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text if character != "\0"]

    def ordinary_ids(self) -> Sequence[int]:
        return IDS


def config(**fields: object) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "m", **fields})


def batch(*lengths: int, new: int = 4) -> Batch:
    return tuple(Request(row, (1,) * length, new) for row, length in enumerate(lengths))


def shape(batch: Batch) -> list[tuple[int, int]]:
    return [(len(request.token_ids), request.max_new_tokens) for request in batch]


def test_only_the_first_n_prompts_become_requests() -> None:
    workload = build_requests([Prompt("a"), Prompt("bc"), Prompt("d")], Letters(), config(n=2))
    assert [(r.index, r.token_ids) for r in workload.requests] == [(0, (97,)), (1, (98, 99))]
    assert workload.truncated == 0


def test_a_prompt_longer_than_the_limit_keeps_its_beginning_and_is_counted() -> None:
    prompts = [Prompt("abc"), Prompt("abcd"), Prompt("abcde")]
    workload = build_requests(prompts, Letters(), config(max_input_tokens=3))
    assert {r.token_ids for r in workload.requests} == {(97, 98, 99)}
    assert workload.truncated == 2


def test_without_a_limit_nothing_is_cut() -> None:
    workload = build_requests([Prompt("a" * 2000)], Letters(), config(max_input_tokens=None))
    assert (len(workload.requests[0].token_ids), workload.truncated) == (2000, 0)


def test_a_prompts_own_max_new_tokens_comes_first() -> None:
    prompts = [Prompt("a", max_new_tokens=5), Prompt("b")]
    workload = build_requests(prompts, Letters(), config(max_new_tokens=9))
    assert [r.max_new_tokens for r in workload.requests] == [5, 9]


def test_tokens_that_are_given_are_not_tokenised_again() -> None:
    workload = build_requests([Prompt(token_ids=(5, 6))], Letters(), config())
    assert workload.requests[0].token_ids == (5, 6)


def test_a_prompt_without_tokens_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="prompt 2 of the dataset has no tokens"):
        build_requests([Prompt("a"), Prompt("\0")], Letters(), config())


def test_a_prompt_that_does_not_fit_the_context_is_an_error_that_names_the_fields() -> None:
    prompts = [Prompt("a" * 6), Prompt("a" * 8), Prompt("a" * 7)]
    assert build_requests(prompts, Letters(), config(max_new_tokens=4), context_limit=12)
    with pytest.raises(ConfigError) as caught:
        build_requests(prompts, Letters(), config(max_new_tokens=5), context_limit=11)
    for part in ("2 prompts", "11 tokens", "prompt 2", "max_input_tokens", "max_new_tokens"):
        assert part in caught.value.message


def test_warm_up_has_measured_shapes_and_other_prompts() -> None:
    plan = [batch(3, 5), batch(2, 2, new=9)]
    warm = warmup_batches(plan, 2, IDS, seed=1)
    assert sorted(map(shape, warm)) == sorted(map(shape, plan))
    drawn = [token for b in warm for request in b for token in request.token_ids]
    assert set(drawn) <= set(IDS)
    assert len(set(drawn)) > 1


def test_the_largest_batch_warms_up_first() -> None:
    plan = [batch(9), batch(4, 4, 4), batch(10, 1), batch(1, new=2)]
    assert shape(warmup_batches(plan, 1, IDS, seed=1)[0]) == shape(plan[2])


def test_warm_up_goes_on_to_its_full_length_and_the_measured_requests_do_not() -> None:
    plan = [batch(9, 8, 2), batch(3)]
    warm = warmup_batches(plan, 3, IDS, seed=7)
    assert all(request.full_length for one in warm for request in one)
    assert not any(request.full_length for one in plan for request in one)


def test_warm_up_is_spread_over_the_plan() -> None:
    plan = [batch(length) for length in range(1, 101)]
    warm = warmup_batches(plan, 5, IDS, seed=1)
    assert [len(b[0].token_ids) for b in warm] == [100, 1, 25, 50, 75]


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_warm_up_has_as_many_batches_as_asked_for(n: int) -> None:
    plan = [batch(4), batch(3), batch(2), batch(1)]
    lengths = [len(b[0].token_ids) for b in warmup_batches(plan, n, IDS, seed=1)]
    assert len(lengths) == n
    assert set(lengths[:4]) == {4, 3, 2, 1} or n < 4


def test_every_warm_up_batch_draws_its_own_prompts() -> None:
    warm = warmup_batches([batch(20, 20)], 4, IDS, seed=1)
    later = warmup_batches([batch(20, 20)], 4, IDS, seed=1, numbers=range(4, 8))
    rows = [request.token_ids for b in (*warm, *later) for request in b]
    assert len(set(rows)) == 16


def test_warm_up_depends_on_its_arguments_alone() -> None:
    plan = [batch(20), batch(30)]
    assert warmup_batches(plan, 3, IDS, seed=1) == warmup_batches(plan, 3, IDS, seed=1)
    assert warmup_batches(plan, 3, IDS, seed=1) != warmup_batches(plan, 3, IDS, seed=2)
    one_by_one = [warmup_batches(plan, 5, IDS, 1, [number])[0] for number in range(5)]
    assert tuple(one_by_one) == warmup_batches(plan, 5, IDS, 1)


def test_a_warm_up_that_goes_on_has_the_shape_of_the_largest_batch() -> None:
    plan = [batch(3), batch(9), batch(4)]
    later = warmup_batches(plan, 2, IDS, seed=1, numbers=[2, 3])
    assert [shape(one) for one in later] == [shape(plan[1])] * 2
    assert later[0] != later[1]


def test_no_warm_up_needs_no_tokens() -> None:
    assert warmup_batches([batch(3)], 0, (), seed=1) == ()
    with pytest.raises(BackendError, match="no ordinary tokens"):
        warmup_batches([batch(3)], 1, (), seed=1)


class Template(Letters):
    """Three tokens of a chat template before the text, and two after it."""

    def encode(self, text: str) -> list[int]:
        return [1, 2, 3, *super().encode(text), 4, 5]


def test_under_a_chat_template_the_text_is_cut_and_the_template_stays_whole() -> None:
    asked = config(apply_chat_template=True, max_input_tokens=10, n=1)
    workload = build_requests([Prompt(text="x" * 100)], Template(), asked)
    (request,) = workload.requests
    assert workload.truncated == 1
    assert request.token_ids[:3] == (1, 2, 3)
    assert request.token_ids[-2:] == (4, 5)
    assert len(request.token_ids) <= 10
    assert ord("x") in request.token_ids


def test_a_chat_template_longer_than_the_limit_is_refused() -> None:
    asked = config(apply_chat_template=True, max_input_tokens=4, n=1)
    with pytest.raises(ConfigError, match="the chat template alone has 5 tokens"):
        build_requests([Prompt(text="x" * 100)], Template(), asked)


class Chats(Letters):
    """Each turn in three tokens of a chat template, and two at the end."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        roles = {"system": 1, "user": 2, "assistant": 3}
        turns = [[roles[one.role], *self.encode(one.content), 4, 4] for one in messages]
        return [token for turn in turns for token in turn] + [5, 5]


def chat(*turns: str) -> Prompt:
    roles: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    return Prompt(messages=tuple(Message(roles[turn[0]], turn) for turn in turns))


def tokens_of(prompt: Prompt, **fields: object) -> tuple[int, ...]:
    (request,) = build_requests([prompt], Chats(), config(n=1, **fields)).requests
    return request.token_ids


def test_a_chat_goes_through_the_template_turn_by_turn_without_being_asked_for() -> None:
    expected = Chats().encode_chat(chat("s", "u", "a", "u").messages or ())
    assert tokens_of(chat("s", "u", "a", "u")) == tuple(expected)


def test_a_system_prompt_comes_before_what_has_none_of_its_own() -> None:
    asked = {"system_prompt": "s!", "apply_chat_template": True}
    system = Message("system", "s!")
    with_system = Chats().encode_chat([system, Message("user", "u")])
    assert tokens_of(Prompt("u"), **asked) == tuple(with_system)
    assert tokens_of(chat("u"), system_prompt="s!") == tuple(with_system)
    assert tokens_of(chat("s", "u"), **asked) == tokens_of(chat("s", "u"))


def test_a_chat_that_is_too_long_loses_its_last_turns_and_stays_a_whole_chat() -> None:
    talk = chat("u one", "a two", "u three", "a four", "u five")
    whole = len(tokens_of(talk))
    turns = talk.messages or ()
    for limit in range(6, whole + 1):
        workload = build_requests([talk], Chats(), config(n=1, max_input_tokens=limit))
        tokens = list(workload.requests[0].token_ids)
        assert len(tokens) <= limit
        assert workload.truncated == (limit < whole)
        asking = tokens.count(2)
        cut = [*turns[: 2 * asking - 2], Message("user", "")]
        begin = Chats().encode_chat(cut)[:-4]
        assert tokens[: len(begin)] == begin, "earlier turns are whole"
        assert tokens[-4:] == [4, 4, 5, 5]
        text = "".join(map(chr, tokens[len(begin) : -4]))
        assert turns[2 * asking - 2].content.startswith(text)
        assert text


def test_a_chat_whose_template_is_longer_than_the_limit_is_refused() -> None:
    for limit in (3, 5):
        with pytest.raises(ConfigError, match="the chat template alone has 5 tokens"):
            tokens_of(chat("u one", "a", "u"), max_input_tokens=limit)


def test_a_tokenizer_that_takes_no_chats_is_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="takes no chats; name a column of plain text"):
        build_requests([chat("u")], Letters(), config(n=1))


def test_a_token_that_the_model_does_not_have_is_told_with_its_prompt() -> None:
    prompts = [Prompt(text="ab"), Prompt(text="z")]
    rows = ord("z")
    assert build_requests(prompts, Letters(), config(n=1), token_rows=rows).requests
    with pytest.raises(ConfigError, match=f"prompt 2 of the dataset has token {rows}, which"):
        build_requests(prompts, Letters(), config(n=2), token_rows=rows)


def test_a_template_that_fills_the_limit_leaves_nothing_to_a_prompt() -> None:
    asked = config(apply_chat_template=True, max_input_tokens=5, n=1)
    with pytest.raises(ConfigError, match="leaves nothing of max_input_tokens: 5 to a prompt"):
        build_requests([Prompt(text="x" * 100)], Template(), asked)
