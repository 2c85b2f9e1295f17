"""The names of the authors' weight files, https://huggingface.co/piddnad, as those of this network."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

UNUSED = r"mean|std|encoder\.arch\.norm\.(weight|bias)"  # constants, and a normalization that colors nothing
RENAMED = (
    (r"encoder\.arch\.downsample_layers\.0\.", "encoder.stem_"),
    (r"encoder\.arch\.downsample_layers\.(\d)\.", r"encoder.stages_\1.downsample."),
    (r"encoder\.arch\.stages\.(\d)\.", r"encoder.stages_\1.blocks."),
    (r"encoder\.arch\.norm(\d)\.", r"norms.\1."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"decoder\.layers\.(\d)\.shuf\.", r"pixel_decoder.\1.up."),
    (r"decoder\.layers\.(\d)\.bn\.", r"pixel_decoder.\1.norm."),
    (r"decoder\.layers\.(\d)\.", r"pixel_decoder.\1."),
    (r"decoder\.last_shuf\.", "last_up."),
    (r"refine_net\.0\.0\.", "refine."),
    (r"\.weight_orig$", ".parametrizations.weight.original"),
    (r"\.weight_(u|v)$", r".parametrizations.weight.0._\1"),
    (r"^decoder\.color_decoder\.", "color_decoder."),
    (r"\.transformer_cross_attention_layers\.(\d)\.multihead_attn\.", r".layers.\1.cross."),
    (r"\.transformer_cross_attention_layers\.(\d)\.norm\.", r".layers.\1.cross_norm."),
    (r"\.transformer_self_attention_layers\.(\d)\.self_attn\.", r".layers.\1.own."),
    (r"\.transformer_self_attention_layers\.(\d)\.norm\.", r".layers.\1.own_norm."),
    (r"\.transformer_ffn_layers\.(\d)\.norm\.", r".layers.\1.feed_norm."),
    (r"\.transformer_ffn_layers\.(\d)\.linear1\.", r".layers.\1.feed.0."),
    (r"\.transformer_ffn_layers\.(\d)\.linear2\.", r".layers.\1.feed.2."),
    (r"\.out_proj\.", ".out."),
    (r"\.decoder_norm\.", ".norm."),
    (r"\.query_feat\.weight$", ".query"),
    (r"\.query_embed\.weight$", ".query_position"),
    (r"\.level_embed\.weight$", ".level"),
    (r"\.input_proj\.", ".projections."),
    (r"\.color_embed\.layers\.(\d)\.", lambda found: f".embed.{2 * int(found[1])}."),
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict -> that of `DDColor`, but for the discriminator, which they did not publish."""
    converted = {}
    for name, tensor in state.items():
        if re.fullmatch(UNUSED, name):
            continue
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if found := re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                converted[f"generator.{found[1]}.{part}.{found[2]}"] = rows
        else:
            converted[f"generator.{name}"] = tensor
    return converted
