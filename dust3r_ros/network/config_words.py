"""The words that checkpoints describe their network with, read as data: nothing in them is ever run."""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from dust3r_ros.network.config import HEADS, NetworkConfig, NetworkError

log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]  # of the tensors, by key

SIZES = {
    "enc_embed_dim": "encoder_width",
    "enc_depth": "encoder_depth",
    "enc_num_heads": "encoder_heads",
    "dec_embed_dim": "decoder_width",
    "dec_depth": "decoder_depth",
    "dec_num_heads": "decoder_heads",
}
PATCH_EMBEDDINGS = ("PatchEmbed", "PatchEmbedDust3R", "ManyAR_PatchEmbed")  # the same weights; they differ in how portraits are batched
RANGES = {
    "depth_mode": ("exp", -math.inf, math.inf),
    "conf_mode": ("exp", 1.0, math.inf),
    "desc_conf_mode": ("exp", 0.0, math.inf),
}
SQUARE = 224  # published networks of this size were trained on squares; ours of this size say [224, 168]
USED = {
    *SIZES,
    *RANGES,
    "patch_size",
    "img_size",
    "pos_embed",
    "head_type",
    "output_mode",
    "mlp_ratio",
    "patch_embed_cls",
    "two_confs",
    "head_width",
    "coordinates",
    "stem",
    "match_width",
    "detail_width",
    "tracked",
}


def words_of_call(text: str, source: str) -> dict[str, Any]:
    """The keywords of `Name(word=value, ...)` as data. Raises NetworkError for anything but literals (and inf)."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not one call with keywords")
        return {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        start = text if len(text) < 60 else f"{text[:60]}..."
        raise NetworkError(f"{source} describes its network as '{start}', which is no Name(word=value, ...): {error}") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple | ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_literal(node.operand)
    if isinstance(node, ast.Name) and node.id in ("inf", "Infinity"):
        return math.inf
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float" and len(node.args) == 1:
        return float(ast.literal_eval(node.args[0]))
    if isinstance(node, ast.Constant):
        return node.value
    raise ValueError(f"{type(node).__name__} is no plain value")


def config_of_words(words: Mapping[str, Any], shapes: Shapes, source: str) -> NetworkConfig:
    """The sizes and heads that the words say; widths and depths they leave out are read off the tensors' shapes.

    Raises NetworkError that names the word, for values that this code does not compute.
    """
    for word in sorted(set(words) - USED):
        log.debug("%s: '%s' is of no use here", source, word)

    def refuse(word: str, remedy: str) -> NetworkError:
        return NetworkError(f"{source} has {word} {words.get(word)!r}: {remedy}")

    for word, wanted in RANGES.items():
        if word in words and not _same_range(words[word], wanted):
            raise refuse(word, f"only {wanted} is computed here")
    if words.get("patch_embed_cls", "PatchEmbed") not in PATCH_EMBEDDINGS:
        raise refuse("patch_embed_cls", f"known are {', '.join(PATCH_EMBEDDINGS)}")
    head = words.get("head_type")
    if head not in HEADS:
        raise refuse("head_type", f"known are {', '.join(HEADS)}")
    positions = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", str(words.get("pos_embed", "RoPE100")))
    if not positions:
        raise refuse("pos_embed", "only RoPE100 and RoPE of another base are computed here")
    output = re.fullmatch(r"pts3d(?:\+desc(\d+))?", str(words.get("output_mode", "pts3d")))
    if not output:
        raise refuse("output_mode", "known are pts3d and pts3d+descN")
    if output[1] and not words.get("two_confs", True):
        raise refuse("two_confs", "descriptors with a confidence of their own are computed here, others not")
    return NetworkConfig(
        **{field: _size(words, word, shapes, source) for word, field in SIZES.items()},
        patch_size=_whole(words, "patch_size", 16, source),
        mlp_ratio=_whole(words, "mlp_ratio", 4, source),
        head=head,
        head_width=_whole(words, "head_width", NetworkConfig.head_width, source),
        descriptor_width=int(output[1] or 0),
        rope_base=float(positions[1]),
        coordinates=words.get("coordinates", False) is True,
        stem=words.get("stem", False) is True,
        match_width=_whole(words, "match_width", 0, source) if "match_width" in words else 0,
        detail_width=_whole(words, "detail_width", 0, source) if "detail_width" in words else 0,
        tracked=words.get("tracked", False) is True,
        image_size=_longest(words.get("img_size", 512), source),
        square=words.get("img_size") in (SQUARE, [SQUARE, SQUARE], (SQUARE, SQUARE)),
    )


def words_of_config(config: NetworkConfig) -> dict[str, Any]:
    """The same words for a configuration of ours, so that what we save others can read."""
    sizes = {word: getattr(config, field) for word, field in SIZES.items()}
    descriptors = f"+desc{config.descriptor_width}" if config.descriptor_width else ""
    width = config.image_size
    words = {
        **sizes,
        "patch_size": config.patch_size,
        "mlp_ratio": config.mlp_ratio,
        "img_size": [width, width if config.square or width != SQUARE else SQUARE * 3 // 4],
        "pos_embed": f"RoPE{config.rope_base:g}",
        "head_type": config.head,
        "output_mode": f"pts3d{descriptors}",
    }
    if config.head_width != NetworkConfig.head_width:
        words["head_width"] = config.head_width  # our own word: the published networks know one width
    for word in ("coordinates", "stem", "tracked"):
        if getattr(config, word):
            words[word] = True  # likewise
    for word in ("match_width", "detail_width"):
        if getattr(config, word):
            words[word] = getattr(config, word)
    return {**words, **{word: list(RANGES[word]) for word in RANGES if descriptors or not word.startswith("desc")}}


def _same_range(value: Any, wanted: tuple[str, float, float]) -> bool:
    try:
        return str(value[0]) == wanted[0] and [float(bound) for bound in value[1:]] == list(wanted[1:])
    except (TypeError, ValueError, IndexError, KeyError):
        return False


def _whole(words: Mapping[str, Any], word: str, default: int, source: str) -> int:
    value = words.get(word, default)
    if isinstance(value, list | tuple) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer() or not 0 < value < 1e6:
        raise NetworkError(f"{source} has {word} {value!r}: a whole number above 0 is expected")
    return int(value)


def _longest(value: Any, source: str) -> int:
    sides = value if isinstance(value, list | tuple) else [value]
    return max(_whole({"img_size": side}, "img_size", 512, source) for side in sides) if sides else 512


def _size(words: Mapping[str, Any], word: str, shapes: Shapes, source: str) -> int:
    if word in words:
        return _whole(words, word, 0, source)
    encoder = word.startswith("enc")
    blocks, norm = ("enc_blocks", "enc_norm.weight") if encoder else ("dec_blocks", "dec_norm.weight")
    if word.endswith("embed_dim") and norm in shapes:
        return shapes[norm][0]
    numbers = [int(found[1]) for key in shapes if (found := re.match(rf"{blocks}\.(\d+)\.", key))]
    if word.endswith("depth") and numbers:
        return max(numbers) + 1
    raise NetworkError(f"{source} does not say {word}, and no tensor tells it: name the model, or put a config.json beside the file")
