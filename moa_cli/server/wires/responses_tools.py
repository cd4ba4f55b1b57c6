"""The tools of a Responses request, as functions that any chat-completions endpoint accepts.

Four kinds of tools are converted. A custom tool takes free text; it becomes a function with one
argument, `input`. A function in a namespace gets the namespace as a prefix of its name. A search
for tools that the client runs itself becomes a function, and so do the tools of `openai_tools`. The
client sees calls with its own names and kinds; the model sees the history with those of the
functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moa_cli.server.wires.bodies import given_values, refuse, text_or_none
from moa_cli.server.wires.openai_tools import BUILTIN
from moa_cli.server.wires.tool_names import sendable

ClientToolKind = Literal["function", "custom", "tool_search", "shell", "local_shell", "apply_patch"]
_Path = tuple[str | int, ...]

_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_SEARCH = "tool_search"
# The types of tools that a request may choose.
_CHOSEN = ("function", "custom", *BUILTIN)


@dataclass(frozen=True)
class ClientTool:
    """A tool by the client's names. namespace: empty for a tool without a namespace."""

    kind: ClientToolKind
    name: str
    namespace: str = ""

    @property
    def sent_name(self) -> str:
        """The name of the function that the model sees."""
        if not self.namespace:
            return sendable(self.name)
        # Namespaces of MCP servers already end in two underscores.
        return sendable(f"{self.namespace.removesuffix('__')}__{self.name}")


@dataclass
class ToolTable:
    """The tools of a request. functions: by name, the functions that the model is offered. ignored:
    tools that this server cannot offer."""

    functions: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    _tools: dict[str, ClientTool] = field(default_factory=dict)

    def add(self, tools: Iterable[Any], path: _Path) -> None:
        """Add the tools at `path` of the body. Raises ApiError for a malformed tool."""
        for place, tool in enumerate(tools):
            self._add(tool, (*path, place), "")

    def _add(self, tool: Any, path: _Path, namespace: str) -> None:
        if not isinstance(tool, Mapping):
            refuse("must be an object", *path)
        match tool.get("type"):
            case "function" | "custom" as kind:
                # Some clients nest a tool as chat completions do.
                inner = tool.get(kind)
                described = inner if isinstance(inner, Mapping) and "name" not in tool else tool
                name = described.get("name")
                if not isinstance(name, str) or not name:
                    refuse("must be a text", *path, "name")
                make = _function if kind == "function" else _custom
                self._offer(ClientTool(kind, name, namespace), make(described, path))
            case "namespace" if not namespace:
                name, inside = tool.get("name"), tool.get("tools")
                if not isinstance(name, str) or not name:
                    refuse("must be a text", *path, "name")
                if not isinstance(inside, list):
                    refuse("must be a list of objects", *path, "tools")
                for place, member in enumerate(inside):
                    self._add(member, (*path, "tools", place), name)
            case "tool_search" if tool.get("execution") == "client":
                self._offer(ClientTool("tool_search", _SEARCH), _function(tool, path))
            case "shell" | "local_shell" | "apply_patch" as kind if _is_local(tool):
                if (tool.get("environment") or {}).get("skills"):
                    self.ignored.append("tools[].environment.skills")
                self._offer(ClientTool(kind, kind), BUILTIN[kind].described)
            case str() as kind if kind:
                self.ignored.append(f"tools[].type={kind}")
            case _:
                refuse("must be a text", *path, "type")

    def _offer(self, tool: ClientTool, described: dict[str, Any]) -> None:
        # A tool that a search has found may be in the history more than once.
        if tool.sent_name not in self._tools:
            name = tool.sent_name
            self._tools[name] = tool
            self.functions[name] = {"type": "function", "function": {"name": name, **described}}

    def called(self, sent_name: str) -> ClientTool:
        """The tool for the function name in a model's call. The model may also invent a name."""
        if sent_name in self._tools:
            return self._tools[sent_name]
        # The model may leave out the namespace, as instructions do.
        bare = [tool for tool in self._tools.values() if tool.name == sent_name]
        return bare[0] if len(bare) == 1 else ClientTool("function", sent_name)

    def choose(self, choice: str | Mapping[str, Any]) -> str | dict[str, Any]:
        """The choice of tools in the form of chat completions. Raises ApiError if the choice is not
        possible.

        If the choice allows only some tools, the others are no longer offered.
        """
        if isinstance(choice, str):
            if choice not in ("auto", "none", "required"):
                refuse("must be auto, none, required or an object", "tool_choice")
            return choice
        kind = choice.get("type")
        if kind == "allowed_tools":
            return self._allow(choice)
        if kind not in _CHOSEN:
            refuse(
                f"must be {', '.join(_CHOSEN)} or allowed_tools:"
                " this server has no tools of its own",
                *("tool_choice", "type"),
            )
        name = self._chosen(choice, ("tool_choice",))
        return {"type": "function", "function": {"name": name}}

    def _allow(self, choice: Mapping[str, Any]) -> str:
        mode, tools = choice.get("mode", "auto"), choice.get("tools")
        if mode not in ("auto", "required"):
            refuse("must be auto or required", "tool_choice", "mode")
        if not isinstance(tools, list):
            refuse("must be a list of objects", "tool_choice", "tools")
        allowed = set()
        for place, tool in enumerate(tools):
            path = ("tool_choice", "tools", place)
            if not isinstance(tool, Mapping):
                refuse("must be an object", *path)
            if tool.get("type") in _CHOSEN:
                allowed.add(self._chosen(tool, path))
        self.functions = {name: self.functions[name] for name in self.functions if name in allowed}
        return str(mode)

    def _chosen(self, choice: Mapping[str, Any], path: _Path) -> str:
        kind = str(choice.get("type"))
        inner = choice.get(kind)
        name = choice.get("name", inner.get("name") if isinstance(inner, Mapping) else None)
        name = kind if kind in BUILTIN else name
        namespace = choice.get("namespace") or ""
        if not isinstance(name, str):
            refuse("must be a text", *path, "name")
        if not isinstance(namespace, str):
            refuse("must be a text", *path, "namespace")
        tool = ClientTool("function", name, namespace)
        found = tool if tool.sent_name in self.functions else self.called(name)
        if found.sent_name not in self.functions:
            refuse("names no tool that the request offers", *path, "name")
        return found.sent_name


def _is_local(tool: Mapping[str, Any]) -> bool:
    """Whether the client runs a tool itself, and not OpenAI in a container."""
    environment = tool.get("environment")
    return environment is None or (
        isinstance(environment, Mapping) and environment.get("type") == "local"
    )


def _function(tool: Mapping[str, Any], path: _Path) -> dict[str, Any]:
    parameters = tool.get("parameters")
    if not isinstance(parameters, Mapping | None):
        refuse("must be an object", *path, "parameters")
    return given_values(
        description=text_or_none(tool, "description", *path),
        parameters=_NO_ARGUMENTS if parameters is None else parameters,
        # Only if the client sets it, because many endpoints do not know the field.
        strict=True if tool.get("strict") is True else None,
    )


def _custom(tool: Mapping[str, Any], path: _Path) -> dict[str, Any]:
    form, told = tool.get("format"), text_or_none(tool, "description", *path)
    words = [told] if told else []
    words.append("Put the whole text that the tool takes into `input`.")
    if isinstance(form, Mapping) and form.get("type") == "grammar":
        grammar = form.get("grammar", form)
        if not isinstance(grammar, Mapping) or not isinstance(grammar.get("definition"), str):
            refuse("must be a text", *path, "format", "definition")
        words.append(f"It follows this grammar ({grammar.get('syntax')}):")
        words.append(grammar["definition"])
    return {
        "description": "\n\n".join(words),
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
    }
