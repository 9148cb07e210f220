"""What vLLM does not serve of an adapter is told before a server is asked."""

import pytest

from e2urec.api.serving.vllm_limits import limit_sentences, unserved_parts

PLAIN = {"r": 16, "task_type": "CAUSAL_LM", "bias": "none", "modules_to_save": None}


def test_plain_adapter_of_the_usual_rank_has_nothing_to_be_told() -> None:
    assert unserved_parts(PLAIN) == []
    assert limit_sentences(PLAIN) == []


@pytest.mark.parametrize(("rank", "size"), [(17, 32), (32, 32), (33, 64), (321, 512)])
def test_rank_beyond_the_usual_one_names_the_option_that_serves_it(rank, size) -> None:
    (sentence,) = limit_sentences(PLAIN | {"r": rank})
    assert f"--max-lora-rank {size}," in sentence


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"bias": "lora_only"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "encoder-decoder"),
        ({"r": 513}, "512 is the highest"),
    ],
)
def test_what_vllm_does_not_serve_is_named(settings, word) -> None:
    (sentence,) = limit_sentences(PLAIN | settings)
    assert sentence.startswith("vLLM does not serve it")
    assert word in sentence
