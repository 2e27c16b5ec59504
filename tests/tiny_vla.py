"""SmolVLA, pi0 and pi0.5 as LeRobot builds them, but so small that a test can.

SmolVLA reads its sizes from a folder, which is written here. The sizes of pi0 are in LeRobot's
code, and the tokenizer's name too: `shrunk` puts others in their place.
"""

from contextlib import contextmanager
from importlib import import_module
from unittest.mock import patch

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

WIDTH = 32
SPECIAL = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "end_of_utterance_token": "<end_of_utterance>",
    "global_image_token": "<global-img>",
}
WORDS = ("<unk>", "<pad>", "<bos>", "<eos>", *SPECIAL.values(), "go", "to", "the", "red", "dot")
PI = {
    "image_resolution": (32, 32),
    "num_inference_steps": 2,
    "max_state_dim": 8,
    "max_action_dim": 8,
    "tokenizer_max_length": 16,
}


def write_smolvlm(folder):
    """A SmolVLM of two layers, and its processor."""
    text = {
        "model_type": "llama",
        "vocab_size": len(WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "pad_token_id": 1,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    image_token = WORDS.index(SPECIAL["image_token"])
    config = SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=2, image_token_id=image_token
    )
    config.save_pretrained(folder)
    parts = SmolVLMImageProcessor(), _tokenizer(), SmolVLMVideoProcessor()
    SmolVLMProcessor(*parts, image_seq_len=4, chat_template="-").save_pretrained(folder)
    return str(folder)


def smolvla(folder):
    """Settings of a SmolVLA upon it."""
    return {
        "vlm_model_name": write_smolvlm(folder),
        "load_vlm_weights": False,
        "num_steps": 2,
        "max_state_dim": 8,
        "max_action_dim": 8,
        "resize_imgs_with_padding": (32, 32),
        "num_vlm_layers": 2,
        "tokenizer_max_length": 8,
    }


@contextmanager
def shrunk(kind):
    """Within this, LeRobot's pi0 or pi05 has two narrow layers and knows a dozen words."""
    module = import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    tiny = module.GemmaConfig(
        width=WIDTH, depth=2, mlp_dim=WIDTH, num_heads=2, num_kv_heads=1, head_dim=16
    )
    whole = module.PaliGemmaForConditionalGenerationWithPiGemma

    def narrow(config):
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        for name, value in {**sizes, "patch_size": 8, "projection_dim": WIDTH}.items():
            setattr(config.vision_config, name, value)
        return whole(config=config)

    with (
        patch.object(module, "get_gemma_config", lambda variant: tiny),
        patch.object(module, "PaliGemmaForConditionalGenerationWithPiGemma", narrow),
        patch.object(AutoTokenizer, "from_pretrained", lambda *_, **__: _tokenizer()),
    ):
        yield


def _tokenizer():
    ids = {word: index for index, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=SPECIAL,
    )
