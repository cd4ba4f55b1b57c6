"""The names of models that are known to take images, and of those that are known not to.

Source: the vendors' own pages of their models. Other models are unknown. They are sent images, and
their endpoint's response shows whether they take them.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Names of families, in lower case. _BLIND is tested first, because a name may match both: `o1-mini`
# is blind, `o1` sees.
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


# Cached, because it is asked before each call.
@lru_cache(maxsize=256)
def known_sight(model: str) -> bool | None:
    """Whether a model takes images, by its id at any provider; None if that is not known."""
    name = model.lower().removeprefix("models/")
    if _BLIND.search(name):
        return False
    return True if _SEEING.search(name) else None
