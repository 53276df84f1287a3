"""Models of scores at a tiny size with random weights, seeded, in local folders."""

import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    ResNetConfig,
)

from attncontrol.sprites.training.text import make_tokenizer

SIDE = 32
_SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2}  # fmt: skip
_SEEN = {**_SMALL, "image_size": SIDE, "patch_size": 8}
_WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] yes no a an the red blue cat frog picture of and dog ?"


def clip_folder(folder):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text = {**_SMALL, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id,
            "max_position_embeddings": tokenizer.model_max_length}  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=_SEEN, projection_dim=8)
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    CLIPModel(config).eval().save_pretrained(folder)
    return folder


def _blip(folder, kind):
    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(_WORDS.split()))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    count = len(tokenizer)  # [DEC] and [ENC] come after the words, as in BLIP
    text = {**_SMALL, "vocab_size": count + 2, "bos_token_id": count, "sep_token_id": 3,
            "pad_token_id": 0, "eos_token_id": 3, "max_position_embeddings": 40,
            "encoder_hidden_size": 16, "is_decoder": True}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=_SEEN, projection_dim=8)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return kind(config).eval()


def captions_folder(folder):
    _blip(folder, BlipForConditionalGeneration).save_pretrained(folder)
    return folder


def vqa_folder(folder, *, odds=None):
    """With ``odds``, logarithms of those of yes against no, whatever is asked."""
    model = _blip(folder, BlipForQuestionAnswering)
    if odds is not None:
        head = model.text_decoder.cls.predictions
        with torch.no_grad():
            head.transform.LayerNorm.weight.zero_()
            head.transform.LayerNorm.bias.zero_()
            head.bias.zero_()
            head.bias[_WORDS.split().index("yes")] = odds
    model.save_pretrained(folder)
    return folder


def detr_folder(folder, *, finds="cat", names=("cat", "frog")):
    """Finds one of its names, in the middle half of every picture, and nothing else."""
    torch.manual_seed(2)
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1],
                            layer_type="basic", out_features=["stage4"])  # fmt: skip
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=3, id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )  # fmt: skip
    model = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in model.class_labels_classifier.parameters():
            parameter.zero_()
        model.class_labels_classifier.bias[names.index(finds)] = 10.0
        for parameter in model.bbox_predictor.parameters():
            parameter.zero_()
    DetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def owlvit_folder(folder, *, finds=True):
    """Finds all that it is asked for, or nothing."""
    torch.manual_seed(3)
    tokenizer = make_tokenizer()
    text = {**_SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    config = OwlViTConfig(text_config=text, vision_config=_SEEN, projection_dim=16)
    model = OwlViTForObjectDetection(config).eval()
    with torch.no_grad():
        for name in ("logit_shift", "logit_scale"):
            getattr(model.class_head, name).weight.zero_()
        model.class_head.logit_scale.bias.fill_(-1.0)  # elu(-1) + 1 > 0
        model.class_head.logit_shift.bias.fill_(20.0 if finds else -20.0)
    images = OwlViTImageProcessor(size={"height": SIDE, "width": SIDE})
    OwlViTProcessor(images, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
