# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The type stubs say what is there: each name, each function's arguments, and nothing else."""

import ast
import importlib
import importlib.util
import inspect
import os
import unittest

import bgloop

FOLDER = os.path.dirname(bgloop.__file__)


def read(name):
    with open(os.path.join(FOLDER, name)) as file:
        return ast.parse(file.read())


def describe_stub(function):
    """The arguments as (name, kind, whether they may be missing)."""
    arguments = function.args
    positional = arguments.posonlyargs + arguments.args
    n_required = len(positional) - len(arguments.defaults)
    result = [(each.arg, 'positional only' if each in arguments.posonlyargs else 'any', i >= n_required)
              for i, each in enumerate(positional)]
    if arguments.vararg:
        result.append((arguments.vararg.arg, 'rest', False))
    result += [(each.arg, 'keyword', default is not None)
               for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    if arguments.kwarg:
        result.append((arguments.kwarg.arg, 'keywords', False))
    return result


def describe_runtime(function):
    kinds = {inspect.Parameter.POSITIONAL_ONLY: 'positional only', inspect.Parameter.POSITIONAL_OR_KEYWORD: 'any',
             inspect.Parameter.VAR_POSITIONAL: 'rest', inspect.Parameter.KEYWORD_ONLY: 'keyword',
             inspect.Parameter.VAR_KEYWORD: 'keywords'}
    return [(each.name, kinds[each.kind], each.default is not each.empty)
            for each in inspect.signature(function).parameters.values()]


class Stubs(unittest.TestCase):
    def test_package(self):
        tree = read('__init__.pyi')
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.assertEqual(set(classes) | {'Bg'}, set(bgloop.__all__))
        for name, node in classes.items():
            self.check_class(name, node, getattr(bgloop, name))

    def check_class(self, name, node, kind):
        for member in node.body:
            if isinstance(member, ast.AnnAssign):
                # Other fields are made with the object.
                if name == 'LoopStats' or 'ClassVar' in ast.dump(member.annotation):
                    self.assertTrue(hasattr(kind, member.target.id), f'{name}.{member.target.id}')
            elif isinstance(member, ast.FunctionDef):
                with self.subTest(f'{name}.{member.name}'):
                    function = inspect.getattr_static(kind, member.name)
                    if isinstance(function, (classmethod, staticmethod)):
                        self.assertEqual(member.decorator_list[0].id, 'classmethod')
                        function = function.__func__
                    # What introspection gives has no signature that inspect knows.
                    if inspect.isfunction(function) and 'chunksize' not in ast.dump(member):
                        self.assertEqual(describe_stub(member), describe_runtime(function))

    def test_every_public_method_of_a_loop(self):
        node = next(node for node in read('__init__.pyi').body if getattr(node, 'name', None) == 'Loop')
        said = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        there = {name for name, member in vars(bgloop.Loop).items()
                 if not name.startswith('_') and callable(getattr(bgloop.Loop, name))}
        self.assertEqual(there - said, set())

    def test_testing(self):
        self.check_module('testing')

    @unittest.skipUnless(importlib.util.find_spec('pytest'), 'pytest is not installed (on Debian: python3-pytest)')
    def test_pytest_plugin(self):
        self.check_module('pytest_plugin')

    def check_module(self, name):
        module = importlib.import_module(f'bgloop.{name}')
        for node in read(f'{name}.pyi').body:
            if isinstance(node, ast.ClassDef):
                self.check_class(node.name, node, getattr(module, node.name))
            elif isinstance(node, ast.FunctionDef):
                function = inspect.unwrap(getattr(module, node.name))
                function = getattr(function, '__pytest_wrapped__', None) or function
                function = getattr(function, 'obj', function)
                self.assertEqual(describe_stub(node), describe_runtime(function), node.name)
