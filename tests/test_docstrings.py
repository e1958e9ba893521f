"""Every public function says what it takes, returns and raises."""

import inspect

import pytest

import fastconv.functional as F

PUBLIC = {
    name: value
    for name, value in vars(F).items()
    if inspect.isfunction(value) and not name.startswith("_")
}


def test_there_are_functions():
    assert {"conv2d", "max_pool2d", "pad", "cross_entropy", "convolve"} <= set(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_docstring(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    sections = [
        title
        for title, line in zip(text.splitlines(), text.splitlines()[1:], strict=False)
        if line and set(line) == {"-"} and len(line) == len(title)
    ]
    assert sections[:3] == ["Parameters", "Returns", "Raises"]
    first = text.splitlines()[0]
    assert first.endswith((".", ":")), first


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_argument_is_documented(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    parameters = text.split("Parameters\n", 1)[-1].split("Returns\n", 1)[0]
    for argument in inspect.signature(PUBLIC[name]).parameters:
        assert argument in parameters, f"{name}: {argument}"


@pytest.mark.parametrize("name", sorted(n for n in PUBLIC if n.endswith("_backward")))
def test_a_backward_stands_beside_its_function(name):
    forward = PUBLIC[name.removesuffix("_backward")]
    assert forward.__module__ == PUBLIC[name].__module__
    assert next(iter(inspect.signature(PUBLIC[name]).parameters)) == "grad_output"
