"""Prompts are compared with the published strings written out in full, one character at a time."""

from embedfleet import prompts
from embedfleet.catalog import DEFAULT_INSTRUCTION

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def test_default_instruction_is_the_published_one():
    assert DEFAULT_INSTRUCTION == INSTRUCTION


def test_query_has_no_space_after_the_colon():
    assert prompts.query_head(INSTRUCTION) == (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
        "Query:"
    )


def test_instruction_is_kept_as_it_is():
    assert prompts.query_head("  spaced \n") == "Instruct:   spaced \n\nQuery:"


def test_rerank_prompt_is_the_published_one():
    whole = (
        prompts.RERANK_PREFIX
        + prompts.rerank_head(INSTRUCTION, "capital of China")
        + prompts.document_tail("Beijing.")
        + prompts.RERANK_SUFFIX
    )
    assert whole == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that "
        "answer the query\n<Query>: capital of China\n<Document>: Beijing.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_shared_part_ends_before_the_space():
    assert prompts.rerank_head("i", "q").endswith("<Document>:")
    assert prompts.document_tail("d") == " d"
