"""Which models see images: as lists tell it in any form, by name, and from one day to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moa_cli.models.model_list import read_list
from moa_cli.models.sight import known_sight
from tests.support.attached import PNG, images
from tests.support.command import KEY, Moa
from tests.support.upstream import Upstream

TOLD: list[tuple[dict[str, Any], bool | None]] = [
    ({"architecture": {"input_modalities": ["text", "image", "file"]}}, True),
    ({"architecture": {"input_modalities": ["text"]}}, False),
    ({"architecture": {"modality": "text+image->text"}}, True),
    ({"architecture": {"modality": "text->text"}}, False),
    ({"input_modalities": ["TEXT", "IMAGE"]}, True),
    ({"modalities": {"input": ["text"], "output": ["text"]}}, False),
    ({"capabilities": {"completion_chat": True, "vision": True}}, True),
    ({"capabilities": {"completion_chat": True, "vision": False}}, False),
    ({"capabilities": {"image_input": {"supported": True}}}, True),
    ({"capabilities": {"supports": {"vision": True}}}, True),
    ({"model_spec": {"capabilities": {"supportsVision": False}}}, False),
    ({"supports_image_input": True}, True),
    ({"supports_image_in": False}, False),
    ({"capabilities": ["completion", "vision", "tools"]}, True),
    ({"capabilities": ["completion", "tools"]}, False),
    ({"capabilities": ["completion", "multimodal"]}, True),
    ({"tags": ["tool-use", "vision"]}, True),
    ({"tags": ["tool-use"]}, None),
    ({"type": "vlm"}, True),
    ({"type": "llm"}, False),
    ({"type": "chat"}, None),
    ({"capabilities": {"vision": "yes"}}, None),
    ({"input_modalities": []}, None),
    ({"architecture": None, "capabilities": 3}, None),
    ({}, None),
]


@pytest.mark.parametrize(("row", "sees"), TOLD)
def test_what_a_list_says_is_read_in_any_form(row: dict[str, Any], sees: bool | None) -> None:
    found = read_list([{"id": "some-model", **row}])
    assert found is not None
    assert [info.sees for info in found] == [sees]


SEEING = (
    "gpt-4o openai/gpt-4.1-nano gpt-5-mini o1 o3 o4-mini claude-3-haiku-20240307"
    " anthropic/claude-opus-4.5 models/gemini-2.5-flash google/gemma-3-27b-it gemma3:4b"
    " meta-llama/Llama-4-Scout-17B-16E-Instruct meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo"
    " llama3.2-vision Qwen/Qwen2.5-VL-72B-Instruct qwen2.5vl:7b pixtral-12b grok-4 llava:13b"
    " moonshotai/Kimi-K2.6 zai/glm-4.6v microsoft/phi-4-multimodal-instruct qwen3-omni-30b"
)
BLIND = (
    "gpt-3.5-turbo gpt-4 gpt-4-0613 openai/gpt-oss-120b o1-mini o3-mini claude-2.1"
    " meta-llama/Llama-3.3-70B-Instruct-Turbo llama3.1:8b llama3.2:3b Qwen/Qwen2.5-7B-Instruct"
    " Qwen/Qwen3-235B-A22B-Instruct-2507 qwen3-coder deepseek-ai/DeepSeek-V3.1 deepseek-r1:7b"
    " mistralai/Mixtral-8x22B-Instruct-v0.1 moonshotai/Kimi-K2-Instruct-0905 zai-org/GLM-4.6"
    " gemma2:9b gemma3:1b microsoft/phi-4 codestral-2501 databricks/dbrx-instruct Qwen/QwQ-32B"
)
UNKNOWN = "agg some-model llama-5 foo/visionary llama3.2 qwen3.5-397b gpt-4o-audio-preview"


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        *((model, True) for model in SEEING.split()),
        *((model, False) for model in BLIND.split()),
        *((model, None) for model in UNKNOWN.split()),
    ],
)
def test_a_name_tells_only_what_is_known(model: str, sees: bool | None) -> None:
    assert known_sight(model) is sees


@pytest.fixture
def seeing(tmp_path: Path) -> Any:
    """A machine on which the list says that `a` is blind, against its name."""
    blind = {"id": "gpt-4o", "capabilities": {"vision": False}}
    with Upstream(api_key=KEY, models=[blind, "agg"]) as upstream:
        moa = Moa(tmp_path, upstream.url)
        moa.profile("lab", "gpt-4o")
        (moa.folder / "photo.png").write_bytes(PNG)
        yield moa, upstream


def saw(upstream: Upstream) -> bool:
    return bool(images(upstream.chats("gpt-4o")[-1].messages[-1]))


def test_a_list_counts_for_more_than_a_name_and_is_kept(seeing: tuple[Moa, Upstream]) -> None:
    moa, upstream = seeing
    assert moa.run("models", "lab").code == 0
    for _ in range(2):
        assert moa.run("ask", "hi", "-f", "photo.png").code == 0
        assert not saw(upstream)
    # The list was kept, and is not read anew.
    assert len([call for call in upstream.requests if call.route == "/models"]) <= 2


def test_a_list_that_was_kept_before_lists_told_is_still_read(
    seeing: tuple[Moa, Upstream],
) -> None:
    moa, upstream = seeing
    assert moa.run("ask", "hi").code == 0
    assert moa.run("ask", "hi", "-f", "photo.png").code == 0
    [file] = (moa.state.parent / "cache" / "prices").glob("lab-*.json")
    table = json.loads(file.read_text())
    for model in table["models"]:
        model.pop("sees")
        model.pop("tools", None)
    file.write_text(json.dumps(table))
    lists = len([call for call in upstream.requests if call.route == "/models"])
    assert moa.run("ask", "hi", "-f", "photo.png").code == 0
    # Its name tells.
    assert saw(upstream)
    assert len([call for call in upstream.requests if call.route == "/models"]) == lists


def test_the_list_of_models_tells_who_sees(seeing: tuple[Moa, Upstream]) -> None:
    moa, _ = seeing
    rows = json.loads(moa.run("models", "lab", "--json").out)
    assert [row.get("sees_images") for row in rows] == [False, None]
