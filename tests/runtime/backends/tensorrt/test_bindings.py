"""What the code uses of TensorRT, looked up in TensorRT's own Python bindings."""

from __future__ import annotations

import ast
import re
import shutil
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.tensorrt_bindings import FOLDERS, docstrings

CODE = Path(__file__).parents[4] / "runtime" / "backends" / "tensorrt"
VERSIONS = ("10.3.0", "10.7.0", "10.14.1.48.post1", "11.4.0.106")
"""As in the Makefile: the oldest that is supported, those with something new, and the newest."""
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "layer": "ILayer",
    "layer.attention": "IAttention",
    "tensor": "ITensor",
    "inspector": "EngineInspector",
    "runtime_config": "IRuntimeConfig",
    "engine": "ICudaEngine",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
"""Classes of the expressions that the code has for TensorRT's objects."""
SINCE = {
    "LayerType.ATTENTION_INPUT": (10, 14),
    "IAttentionInputLayer": (10, 14),
    "IAttentionInputLayer.attention": (10, 14),
    "IAttention.decomposable": (10, 14),
}
"""What the code uses only from a version on."""
ONLY_RTX = {
    "ComputeCapability",
    "ComputeCapability.__members__",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "ICudaEngine.create_runtime_config",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.set_execution_context_allocation_strategy",
    "IRuntimeConfig.set_runtime_cache",
}
"""What the code uses only of TensorRT-RTX, whether TensorRT has it or not."""


def name_of(node):
    """Dotted name within TensorRT of an attribute in the code, or None."""
    expression = re.sub(r"^(self|plan)\.trt\.", "trt.", ast.unparse(node))
    base, _, attribute = expression.rpartition(".")
    if expression == "layer.attention":
        return "IAttentionInputLayer.attention"
    if base in OBJECTS:
        return f"{OBJECTS[base]}.{attribute}"
    return expression.removeprefix("trt.") if re.fullmatch(r"trt(\.\w+)+", expression) else None


def used():
    """Names that the code uses, each with the arguments that it is called with.

    An argument is None, or its keyword. The flag is looked up by a string.
    """
    names = defaultdict(list, {"NetworkDefinitionCreationFlag.STRONGLY_TYPED": []})
    for path in (CODE / "backend.py", CODE / "context.py", CODE / "engine.py"):
        tree = ast.parse(path.read_text())
        for parent in ast.walk(tree):  # reads the inspector's JSON, whose layers are no objects
            if isinstance(parent, ast.Module):
                parent.body = [n for n in parent.body if getattr(n, "name", "") != "audit_engine"]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (name := name_of(node)):
                names[name] += []
            elif isinstance(node, ast.Call) and (name := name_of(node.func)):
                given = [ast.unparse(argument) for argument in node.args]
                if "self" in given:  # a constructor of a base class
                    given.remove("self")
                elif "." not in name:
                    name += ".__init__"
                if not any(argument.startswith("*") for argument in given):
                    keywords = [keyword.arg for keyword in node.keywords]
                    names[name].append([None] * len(given) + keywords)
            elif isinstance(node, ast.ClassDef):
                for base in map(name_of, node.bases):
                    methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
                    names |= {f"{base}.{method}": [] for method in methods if base}
    return names


def accepts(docstring, arguments):
    """Whether an overload in a docstring of pybind11 takes arguments; self is not among them."""
    for parameters in re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> ", docstring, re.MULTILINE):
        flat = re.sub(r"\[[^][]*\]", "", re.sub(r"\[[^][]*\]", "", parameters))
        declared = [part.strip() for part in flat.split(",")]
        declared = [part for part in declared if part and not part.startswith("self:")]
        names = [part.partition(":")[0] for part in declared]
        required = {part.partition(":")[0] for part in declared if "=" not in part}
        positional = arguments.count(None)
        given = set(names[:positional]) | set(filter(None, arguments))
        if len(names) >= len(arguments) and required <= given <= set(names):
            return True
    return False


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [([None], True), ([None, "c"], True), ([], False), (["b"], False), ([None] * 4, False)],
)
def test_arguments_are_compared_with_signatures(arguments, accepted):
    one = "f(self: trt.X, a: int, b: typing.Optional[dict[str, int]] = None, c: int = 0) -> bool"
    assert accepts(one, arguments) == accepted
    both = f"f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: trt.X) -> bool\n\n2. {one}"
    assert accepts(both, arguments) == (accepted or not arguments)


def test_every_object_of_tensorrt_is_found_in_the_code():
    names = used()
    assert len(names) > 60
    for kind in OBJECTS.values():
        assert any(name.startswith(f"{kind}.") for name in names), kind


def check(found, missing):
    """Compare what was found of TensorRT with what the code uses of it."""
    assert {name for name, docstring in found.items() if docstring is None} == missing
    calls = used()
    for name, docstring in found.items():
        for arguments in calls[name]:
            if docstring is not None and "->" in docstring:
                assert accepts(docstring, arguments), f"{name}{arguments}: {docstring}"


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_tensorrt_has_what_the_code_uses(version):
    if not (FOLDERS / version).exists() or not shutil.which("cc"):
        pytest.skip(f"the bindings of {version} are not here; see make test-bindings")
    numbers = tuple(map(int, version.split(".")[:2]))
    later = {name for name, since in SINCE.items() if since > numbers}
    check(docstrings(used().keys() - ONLY_RTX, "tensorrt_bindings", FOLDERS / version), later)


def test_tensorrt_rtx_has_what_the_code_uses():
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX has no wheel for this platform")
    check(docstrings(used(), "tensorrt_rtx"), set())
