"""Which models see images: what lists tell, and the names of models that are known to, or not to.

Source of the names: the vendors' own pages of their models. A name that is not here is unknown:
such a model is sent images, and its endpoint tells whether it takes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from moa_cli.models.rows import tables_in

_Row = Mapping[str, Any]

# Fields of an entry, or of a table in it, that say yes or no.
_FLAGS = (
    "vision",
    "supports_vision",
    "supportsVision",
    "supports_image_input",
    "supports_image_in",
    "supports_images",
    "image_input",
    "image",
)
# Lists of what goes in, and those of what a model can do, in which it is one word.
_INPUTS = ("input_modalities", "supported_input_modalities", "inputModalities", "input")
_ABILITIES = ("capabilities", "features", "tags", "supported_features")
_VISION = frozenset({"vision", "image", "images", "image_input", "multimodal", "vlm"})
_INSIDE = (
    "architecture",
    "capabilities",
    "modalities",
    "supports",
    "metadata",
    "meta",
    "model_spec",
)
# The names of families, in lower case. What is not seen by the first may be seen by the second:
# `o1-mini` is blind, `o1` sees.
_BLIND = re.compile(
    r"""(?<![a-z0-9])(?:
    gpt-(?:3|oss|4(?:-(?:0[36]\d\d|32k|\d{4}-preview))?(?=$|[:@]))
    |o[13]-mini|o1-preview
    |claude-(?:2|instant)
    |llama-?(?:2|3|3\.[13]|3\.2[-:][13]b)(?![.\d])(?!.*vision)
    |mi[sx]tral-(?:7b|8x\d+b|nemo|tiny)|open-mi[sx]tral|codestral|devstral|mathstral
    |deepseek-(?!vl|ocr|janus)
    |qwen(?:1\.5|2|2\.5|3)(?:-(?:coder|math|next|max))?(?=-|:|$)(?!.*(?:vl|omni))
    |qwq-
    |kimi-k2(?![.\d])|kimi-k2-
    |glm-(?:4|4\.[567]|5)(?:-(?:air|airx|flash|x|plus|9b))*(?=$|[:@])
    |phi-?(?:2|3|3\.5|4)(?![.\d])(?!.*(?:vision|multimodal))
    |gemma-?(?:2|7b|1)(?![.\d])|gemma-?3[-:](?:1b|270m)|codegemma
    |smollm|dbrx|wizardlm|vicuna|command-r|c4ai-command-r|minimax-m|nemotron-(?!.*vl)|olmo
    |hermes-[34]|yi-(?:6|9|34)b|sonar(?:-deep-research)?$|grok-(?:2(?!-vision)|3|code)
    )""",
    re.VERBOSE,
)
_SEEING = re.compile(
    r"""(?<![a-z0-9])(?:
    gpt-(?:4o|4\.[1-9]|4-turbo|4-vision|5)(?!.*(?:audio|search|transcribe|tts))|chatgpt-4o|o1|o3|o4-mini
    |claude-(?:3|4|opus|sonnet|haiku)
    |gemini|gemma-?3(?:n|[-:](?:4|12|27)b)|gemma-?4
    |llama-?3\.2[-:](?:11|90)b|llama-?4
    |pixtral|mistral-(?:small-(?:latest|2503|2506|3\.[12])|medium-(?:latest|2505|2508|3)|large-(?:3|2512))
    |grok-(?:2-vision|vision|4)|kimi-(?:vl|k2\.[5-9])|glm-(?:4|4\.[1-9]|5)v
    |phi-(?:3|3\.5)-vision|phi-4-multimodal|nova-(?:lite|pro|premier)
    |llava|bakllava|moondream|minicpm-[vo]|internvl|molmo|idefics|smolvlm|cogvlm|paligemma
    )|(?:^|[-_./\d])(?:vl|vlm|vision|omni)(?:[-_.:\d]|$)""",
    re.VERBOSE,
)


def told_sight(row: _Row) -> bool | None:
    """Whether a model takes images, as an entry of a provider's list tells.

    Args:
        row: The entry.

    Returns:
        True or False where it tells; None if it does not.
    """
    for part in tables_in(row, _INSIDE, _INSIDE):
        for name in _FLAGS:
            value = part.get(name)
            # Anthropic's is a table of its own.
            value = value.get("supported") if isinstance(value, Mapping) else value
            if isinstance(value, bool):
                return value
        for name in _INPUTS:
            inputs = _words(part.get(name))
            if inputs:
                return "image" in inputs or "images" in inputs
        ways_in, arrow, _ = str(part.get("modality", "")).partition("->")
        if arrow:
            return "image" in ways_in
    for name in _ABILITIES:
        abilities = _words(row.get(name))
        if abilities & _VISION:
            return True
        if name == "capabilities" and "completion" in abilities:
            # Ollama and llama.cpp list all that a model can do.
            return False
    # LM Studio's words.
    return {"vlm": True, "llm": False}.get(str(row.get("type", "")).lower())


# Asked before each call.
@lru_cache(maxsize=256)
def known_sight(model: str) -> bool | None:
    """Whether a model takes images, as its name tells.

    Args:
        model: Its id at any provider.

    Returns:
        True or False for a model that is known; None for any other.
    """
    name = model.lower().removeprefix("models/")
    if _BLIND.search(name):
        return False
    return True if _SEEING.search(name) else None


def _words(value: object) -> set[str]:
    """The words of a list, in lower case; empty for a value of another kind."""
    return {str(word).lower() for word in value} if isinstance(value, list) else set()
