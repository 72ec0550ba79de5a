"""Imports go one way: no two modules need each other, and none needs the package's root."""

import ast
from collections import Counter
from pathlib import Path

import timm_repaint

PACKAGE = Path(timm_repaint.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file imports, at its top or inside functions, TYPE_CHECKING included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name for name in names if name in modules} or {node.module}
    return found & modules


def graph() -> dict[str, set[str]]:
    paths = {module_name(path): path for path in PACKAGE.rglob('*.py')}
    return {name: imports_of(path, set(paths)) - {name} for name, path in paths.items()}


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), list(edges[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


def test_no_module_needs_itself_in_the_end():
    edges = graph()
    assert [name for name in edges if name in reachable(name, edges)] == []


def test_no_module_imports_the_root():
    assert [name for name, needed in graph().items() if 'timm_repaint' in needed] == []


def room_of(name: str) -> str:
    """The package a module is in, or the module itself where it lies at the top."""
    return name.split('.')[1] if '.' in name else ''


def test_no_two_packages_import_each_other():
    between = {(room_of(name), room_of(other)) for name, needed in graph().items() for other in needed}
    assert [(a, b) for a, b in between if a < b and (b, a) in between] == []


def test_no_two_modules_or_classes_have_one_name():
    modules = [path.stem for path in PACKAGE.rglob('*.py') if not path.stem.startswith('__')]
    nodes = [node for path in PACKAGE.rglob('*.py') for node in ast.walk(ast.parse(path.read_text()))]
    classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    commands = {'fine_tune', 'train', 'validate'}  # `python -m timm_repaint.detection.train` and the like
    twice = {name for names in (modules, classes) for name, count in Counter(names).items() if count > 1}
    assert twice - commands == set()


def test_functions_have_six_parameters_at_most_but_constructors_and_those_with_timms_signature():
    long = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name != '__init__':
                names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name not in ('self', 'cls')]) > 6:
                    long.add(node.name)
    assert long == {'train_one_epoch', 'validate'}


def test_measuring_knows_no_engine_and_the_engine_no_report():
    for name, needed in graph().items():
        parts = [other.split('.')[1] for other in needed]
        if name.startswith('timm_repaint.monitor'):
            assert not {'engine', 'report', 'detection'} & set(parts), name
        if name.startswith('timm_repaint.engine'):
            assert 'report' not in parts, name
