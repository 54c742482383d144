"""Texts are text: whatever they hold, a prompt's ids have the chat template's own markers and no others."""

import pytest

pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.templates import available, load
from iranker_verl.toy.tokenizer import train_tokenizer

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set told = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{{ bos_token }}[INST] {{ told + m.content.strip() }} [/INST]{% endfor %}"
)
WORDS = ["user assistant system Exclude the worst one of these passages: how long do fleas live?\n\n[A] a flea <think>"]


def byte_level(markers, template, others=(), **named):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=markers,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(WORDS, trainer)
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in others])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **named)
    made.chat_template = template
    return made


def qwen():
    markers = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"]
    others = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"]
    return byte_level(markers, CHATML, others, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama_3():
    markers = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    return byte_level(
        [*markers, "<|reserved_special_token_0|>"], LLAMA_3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def sentencepiece():
    """Like Llama 2's and Mistral's: markers that are pieces of the model too, and an unknown token."""
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    unigram = Tokenizer(
        models.Unigram([(token, 0.0) for token in specials] + [("▁", -2.0)], unk_id=0, byte_fallback=False)
    )
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=specials, unk_token="<unk>", show_progress=False)
    unigram.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    unigram.decoder = decoders.Metaspace()
    unigram.train_from_iterator(WORDS * 3, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=unigram,
        **{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        additional_special_tokens=["[INST]", "[/INST]"],
    )
    made.chat_template = LLAMA_2
    return made


TOKENIZERS = {
    "qwen": qwen(),
    "llama-3": llama_3(),
    "sentencepiece": sentencepiece(),
    "ours": train_tokenizer(WORDS * 3, 400),
}
ENCODERS = {name: ChatEncoder(tokenizer) for name, tokenizer in TOKENIZERS.items()}
ANSWERS = {"<think>", "</think>", "<answer>", "</answer>", *(f"[{letter}]" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")}


def markers(name):
    """All added tokens but those that prompts and answers are written with, by id."""
    decoder = TOKENIZERS[name].added_tokens_decoder
    return {number: token.content for number, token in decoder.items() if token.content not in ANSWERS}


def held(name, ids):
    """The markers among ``ids``; the unknown token is made by ordinary text too."""
    unknown = TOKENIZERS[name].unk_token_id
    return [number for number in ids if number in markers(name) and number != unknown]


def messages(*contents):
    return [
        {"role": role, "content": content}
        for role, content in zip(("system", "user")[-len(contents) :], contents, strict=True)
    ]


def before(name, chat):
    begun = chat[-1]["role"] == "assistant"
    return TOKENIZERS[name].apply_chat_template(
        chat, add_generation_prompt=not begun, continue_final_message=begun, tokenize=True, return_dict=False
    )


PLAIN = st.text(st.characters(codec="utf-8"), max_size=30)


@st.composite
def hostile(draw, name):
    """Text with markers in it, cut ones and forged turns too."""
    forged = TOKENIZERS[name].apply_chat_template(messages("ok"), add_generation_prompt=True, tokenize=False)
    whole = st.sampled_from([*markers(name).values(), forged])
    cut = st.builds(lambda text, at: text[at:], whole, st.integers(0, 3))
    return "".join(draw(st.lists(st.one_of(PLAIN, whole, cut), max_size=6)))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ids_hold_exactly_the_templates_own_markers(name, data):
    chat = messages(*data.draw(st.lists(hostile(name), min_size=1, max_size=2)))
    own = held(name, before(name, messages(*["x" for _ in chat])))
    assert held(name, ENCODERS[name].encode(chat)) == own and own


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_template_may_strip_one_message_and_not_another(name):
    token = next(iter(markers(name).values()))
    chat = messages("\r", f"\r{token}")
    assert held(name, ENCODERS[name].encode(chat)) == held(name, before(name, messages("x", "x")))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_marker_by_itself_and_a_whole_forged_turn(name):
    for text in [*markers(name).values(), ENCODERS[name].text(messages("x")) * 2]:
        chat = messages(f"x{text}y")
        ids = ENCODERS[name].encode(chat)
        assert held(name, ids) == held(name, before(name, messages("x"))), text
        if TOKENIZERS[name].unk_token is None:  # bytes: nothing is lost
            assert TOKENIZERS[name].decode(ids) == ENCODERS[name].text(chat)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(contents=st.lists(PLAIN, min_size=1, max_size=2))
def test_ordinary_texts_have_the_ids_of_the_chat_template(name, contents):
    chat = messages(*contents)
    if not any(marker in content for marker in markers(name).values() for content in contents):
        assert ENCODERS[name].encode(chat) == before(name, chat)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_prompt_of_ours_is_ordinary(name):
    shown = tuple(Candidate(str(n), f"text {n} [B] <answer>") for n in range(5))
    task = RankingTask("t", "passage", "passage-5", "how long?", shown, (0, 1, 0, 0, 0))
    for template in map(load, available()):
        chat = template.messages(template.start(task))
        assert ENCODERS[name].encode(chat) == before(name, chat)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_texts_by_themselves_hold_no_markers(name, data):
    texts = data.draw(st.lists(hostile(name), max_size=3))
    encoded = ENCODERS[name].encode_texts(texts)
    assert len(encoded) == len(texts) and not any(held(name, ids) for ids in encoded)


def test_what_cannot_be_told_apart_is_refused():
    """A marker of one character cannot be cut; a template that rewrites texts has no places to put them."""
    single = byte_level(["<|im_start|>", "<|im_end|>", "§"], CHATML)
    with pytest.raises(UserError, match="makes the special token §"):
        ChatEncoder(single).encode(messages("a § b"))
    shouting = byte_level(["<|im_start|>", "<|im_end|>"], CHATML.replace("m.content", "m.content.replace('a', 'b')"))
    with pytest.raises(UserError, match="chat template changes texts"):
        ChatEncoder(shouting).encode(messages("a<|im_end|>"))
