"""The lab's tokenizer and its small Llama."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safecomm.data.rows import Example

PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"
MAX_LENGTH = 512

# The generation tags mark the assistant's tokens for TRL, which computes the loss only on these. The tags render as
# nothing.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    vocabulary: int = 1536
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 384


def train_tokenizer(examples: Iterable[Example], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer that splits digits, so that unseen numbers are tokenized like others.

    Raises:
        ValueError: if `vocabulary` is too small for the 256 bytes and the special tokens.
    """
    special = [PAD, BOS, EOS, SYSTEM, USER, ASSISTANT]
    if vocabulary < 256 + len(special):
        raise ValueError(f"a byte-level vocabulary needs at least {256 + len(special)} tokens, not {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(examples), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _texts(examples: Iterable[Example]) -> Iterator[str]:
    for example in examples:
        yield example.prompt
        yield example.response


def new_model(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Returns a model with random weights from torch's global generator."""
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        **ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model
