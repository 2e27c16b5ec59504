"""Tiny models with random weights, saved as those of the hub are: none is downloaded."""

import torch

from robolearn.policies.language import words


def tokenizer():
    """Words of a few letters; begins and ends a text as CLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<s>", "</s>", "<unk>", *words("go left up to the red blue dot one")]
    inner = Tokenizer(models.WordLevel({word: k for k, word in enumerate(known)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 1), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=16, **names)


def save_vision(folder, kind="siglip", seed=0):
    """A vision model that sees 4 x 4 patches: siglip, clip (with a text model) or dinov2."""
    import transformers as hf

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen = {**sizes, "image_size": 16, "patch_size": 4}
    square = {"height": 16, "width": 16}
    if kind == "siglip":
        model = hf.SiglipVisionModel(hf.SiglipVisionConfig(**seen, intermediate_size=16))
        processor = hf.SiglipImageProcessor(size=square)
    elif kind == "dinov2":
        model = hf.Dinov2Model(hf.Dinov2Config(**seen, mlp_ratio=1))
        processor = hf.BitImageProcessor(size={"shortest_edge": 20}, crop_size=square)
    else:
        heard = {**sizes, "intermediate_size": 16, "vocab_size": 20, "max_position_embeddings": 16}
        config = hf.CLIPConfig(
            text_config={**heard, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
            vision_config={**seen, "intermediate_size": 16},
        )
        model = hf.CLIPModel(config)
        processor = hf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square)
        tokenizer().save_pretrained(folder)
    _spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def save_language(folder, seed=0):
    """A T5 of one layer."""
    import transformers as hf

    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = hf.T5Model(hf.T5Config(vocab_size=20, **sizes))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def save_diffusion(folder, seed=0):
    """A text-to-image model whose U-Net has two blocks on each side."""
    import transformers as hf
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    torch.manual_seed(seed)
    shared = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **shared,
    )
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        **shared,
    )
    heard = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    heard |= {"intermediate_size": 16, "vocab_size": 20, "max_position_embeddings": 16}
    text = hf.CLIPTextModel(hf.CLIPTextConfig(**heard, eos_token_id=2, bos_token_id=1))
    for model, name in ((vae, "vae"), (unet, "unet"), (text, "text_encoder")):
        _spread(model)
        model.save_pretrained(folder / name)
    DDPMScheduler().save_pretrained(folder / "scheduler")
    tokenizer().save_pretrained(folder / "tokenizer")
    return str(folder)


def save_video(folder, seed=0, **sizes):
    """A video transformer of three blocks, as LTX-Video has 28."""
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(seed)
    small = {"in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "num_layers": 3}
    small |= {"attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 6}
    model = LTXVideoTransformer3DModel(**small | sizes)
    _spread(model)
    model.save_pretrained(folder)
    return str(folder)


def _spread(model):
    """Initial weights are so small that all pictures would look alike."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)


def save_autoencoder(folder, kind="image", seed=0):
    """An autoencoder of diffusers: of images (2 pixels a latent), tiny (8), or of videos (32)."""
    import diffusers

    torch.manual_seed(seed)
    if kind == "image":
        model = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            latent_channels=3,
            scaling_factor=0.5,
            shift_factor=0.25,
        )
    elif kind == "tiny":
        blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        model = diffusers.AutoencoderTiny(**blocks)
    else:
        model = diffusers.AutoencoderKLLTXVideo(
            latent_channels=6,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        )
        model.latents_mean.fill_(0.5)
        model.latents_std.fill_(2.0)
    _spread(model)
    model.save_pretrained(folder)
    return str(folder)
