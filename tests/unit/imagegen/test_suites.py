"""The suites of prompts that the package ships."""

from __future__ import annotations

from imagegen.miniature.evaluation.cases import make_cases
from imagegen.miniature.scenes import MAX_TOKENS, tokenizer
from imagegen.probe.suite import load_suite


def test_the_suite_of_the_miniatures_has_prompts_that_they_were_never_trained_on() -> None:
    cases = make_cases("heldout", seed=2000, count=24, layouts=("left", "upper", "shapes"))

    prompts = load_suite("miniature")

    asked = [(prompt.prompt, prompt.seed) for prompt in prompts]
    assert asked == [(case.prompt, case.seed) for case in cases]
    assert len({prompt.id for prompt in prompts}) == len(prompts)


def test_the_miniatures_read_every_prompt_of_their_suite_to_its_end() -> None:
    tokens = tokenizer()

    lengths = [len(tokens(prompt.prompt)["input_ids"]) for prompt in load_suite("miniature")]

    assert max(lengths) <= MAX_TOKENS
